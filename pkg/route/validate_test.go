package route

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestValidateAll(t *testing.T) {
	trunks, groups := []string{"platform", "carrier-a"}, []string{"carriers"}
	good := Config{Name: "r", From: []string{"platform"}, Prefix: "+49", Group: "carriers"}
	to := func(c Config) []Config {
		c.Name, c.Trunk = "r", "platform"
		return []Config{c}
	}
	after := func(first, second Config) []Config {
		first.Name, first.Trunk, second.Name, second.Trunk = "first", "platform", "second", "platform"
		return []Config{first, second}
	}
	const (
		syntax   = "write it in the syntax of RE2, https://github.com/google/re2/wiki/Syntax"
		unreach  = `[1]: is never reached: route "first" takes all its calls; move it before routes[0], or remove it`
		template = "write ${1} for what the first pair of parentheses found"
	)
	calledIs := func(n Numbers) Config { return Config{Called: n} }
	steps := func(rules ...Rule) []Config { return to(Config{Translate: Translate{Called: rules}}) }
	night := Time{Days: []string{"mon-fri"}, Hours: "22:00-06:00", Zone: "Europe/Berlin"}
	for _, row := range []struct {
		name   string
		routes []Config
		want   string
	}{
		{"OK", []Config{good, {Name: "s", Trunk: "platform"}}, ""},
		{"OK narrow before wide", []Config{good, {Name: "s", From: []string{"platform"}, Prefix: "+4", Group: "carriers"}}, ""},
		{"OK other source", []Config{good, {Name: "s", From: []string{"platform", "carrier-a"}, Prefix: "+49", Group: "carriers"}}, ""},
		{"OK everything", to(Config{
			Called: Numbers{Range: "+4930000-+4930999", Regexp: "[02468]$"}, Caller: Numbers{Prefix: "+1"}, Header: Header{Name: "X-A", Regexp: "b"}, Time: night,
			Translate: Translate{Called: []Rule{{Strip: 3, Add: "0"}, {Regexp: "^(0)(?P<x>.)", Replace: "${x}$1"}}},
		}), ""},
		{"bad name", []Config{{Trunk: "platform"}}, `[0].name: is missing; give 1 to 63 letters, digits, '.', '-' or '_', a letter or digit first`},
		{"bad name twice", []Config{good, {Name: "r", Trunk: "platform"}}, `[1].name: "r" is another route's already; give each route a name of its own`},
		{"bad leads nowhere", []Config{{Name: "r"}}, `[0]: leads nowhere; add group or trunk`},
		{"bad leads two ways", []Config{{Name: "r", Group: "carriers", Trunk: "platform"}}, `[0].trunk: stands beside group "carriers"; keep one of them; a group tries its trunks in turn`},
		{"bad from", []Config{{Name: "r", From: []string{"platfrom"}, Trunk: "platform"}}, `[0].from[0]: there is no trunk "platfrom"; did you mean "platform"?`},
		{"bad from twice", []Config{{Name: "r", From: []string{"platform", "platform"}, Trunk: "platform"}}, `[0].from[1]: "platform" is listed twice; leave it out`},
		{"bad trunk", []Config{{Name: "r", Trunk: "x"}}, `[0].trunk: there is no trunk "x"; name one of the trunks`},
		{"bad group", []Config{{Name: "r", Group: "carrier"}}, `[0].group: there is no group "carrier"; did you mean "carriers"?`},
		{"bad trunk as group", []Config{{Name: "r", Group: "platform"}}, `[0].group: "platform" is a trunk; write trunk: platform`},
		{"bad prefix", []Config{{Name: "r", Prefix: "+49 30", Trunk: "platform"}}, `[0].prefix: "+49 30" cannot be the start of a number; give the start of a number as it is in the Request-URI, e.g. "+49"`},
		{"bad long prefix", to(Config{Caller: Numbers{Prefix: strings.Repeat("1", 33)}}), `[0].caller.prefix: has 33 characters; give at most 32`},
		{"bad two prefixes", to(Config{Prefix: "+4", Called: Numbers{Prefix: "+49"}}), `[0].called.prefix: stands beside prefix "+4"; keep one of them, they mean the same`},
		{"bad prefix beside range", to(Config{Prefix: "+4", Called: Numbers{Range: "+41-+42"}}), `[0].prefix: stands beside called.range, which says more; leave it out`},
		{"bad prefix in range", to(Config{Caller: Numbers{Prefix: "+4", Range: "+41-+42"}}), `[0].caller.prefix: stands beside range, which says more; leave it out`},
		{"bad range", to(calledIs(Numbers{Range: "+4930"})), `[0].called.range: "+4930" is not a range of numbers; write it like "+49301230000-+49301239999"`},
		{"bad range of lengths", to(calledIs(Numbers{Range: "+49300-+4930999"})), `[0].called.range: the ends of "+49300-+4930999" have 5 and 7 digits; give a range for each length`},
		{"bad range of forms", to(calledIs(Numbers{Range: "+49300-4930999"})), `[0].called.range: one end of "+49300-4930999" has a + and the other has none; write both as the trunk's numbers are`},
		{"bad range backwards", to(calledIs(Numbers{Range: "+4939-+4930"})), `[0].called.range: "+4939-+4930" begins above its end; write "+4930-+4939"`},
		{"bad regexp", to(calledIs(Numbers{Regexp: "(+49"})), "[0].called.regexp: is no regular expression: missing argument to repetition operator: \"+\"; " + syntax},
		{"bad regexp of another language", to(calledIs(Numbers{Regexp: `(?=49)`})), "[0].called.regexp: is no regular expression: invalid or unsupported Perl syntax: \"(?=\"; " + syntax},
		{"bad regexp is long", to(calledIs(Numbers{Regexp: strings.Repeat("a", 257)})), "[0].called.regexp: has 257 characters; give at most 256, or more than one route"},
		{"bad header", to(Config{Header: Header{Regexp: "a"}}), "[0].header.name: is missing; name the header, e.g. User-to-User"},
		{"bad header name", to(Config{Header: Header{Name: "X A"}}), `[0].header.name: "X A" is no name of a header; name the header, e.g. User-to-User`},
		{"bad zone", to(Config{Time: Time{Zone: "Europe/Bärlin"}}), `[0].time.zone: "Europe/Bärlin" is no time zone; name one of the IANA database, e.g. Europe/Berlin`},
		{"bad zone of the machine", to(Config{Time: Time{Zone: "Local"}}), `[0].time.zone: "Local" is no time zone; name one of the IANA database, e.g. Europe/Berlin`},
		{"bad day", to(Config{Time: Time{Days: []string{"mon", "tues"}}}), `[0].time.days[1]: "tues" is no day; give one of sun, mon, tue, wed, thu, fri, sat, or two with a dash between`},
		{"bad hours", to(Config{Time: Time{Hours: "8-18"}}), `[0].time.hours: "8-18" is not a span of a day; write it like "08:00-18:00"`},
		{"bad hours of none", to(Config{Time: Time{Hours: "08:00-08:00"}}), `[0].time.hours: "08:00-08:00" is not a span of a day; write it like "08:00-18:00"`},
		{"bad default", to(Config{Default: true, Prefix: "+"}), "[0].default: a default route takes what no other does, and this one has conditions; leave it out, or the conditions"},
		{"bad step", steps(Rule{}), "[0].translate.called[0]: changes nothing; give strip, add or both, or regexp and replace"},
		{"bad strip", steps(Rule{Strip: 33}), "[0].translate.called[0].strip: 33 is out of range; give a number from 0 to 32"},
		{"bad step of two kinds", steps(Rule{Strip: 1}, Rule{Strip: 1, Regexp: "a"}), "[0].translate.called[1].strip: stands beside regexp; make it a step of its own"},
		{"bad replace alone", steps(Rule{Replace: "1"}), "[0].translate.called[0].replace: has no regexp to go with; add regexp, or use add"},
		{"bad group of regexp", steps(Rule{Regexp: "^(0)", Replace: "$2"}), `[0].translate.called[0].replace: "$2" names nothing that the regexp finds; ` + template},
		{"bad group runs into the text", steps(Rule{Regexp: "^(0)", Replace: "$1x"}), `[0].translate.called[0].replace: "$1x" names nothing that the regexp finds; ` + template},
		{"bad dollar", steps(Rule{Regexp: "^(0)", Replace: "1$"}), `[0].translate.called[0].replace: "$" names nothing that the regexp finds; ` + template},
		{"bad characters", steps(Rule{Regexp: "^(0)", Replace: "$1 @"}), `[0].translate.called[0].replace: " @" cannot be part of a number; give what a number is made of, and $1 for what was found`},
		{"bad many steps", steps(make([]Rule, 17)...), "[0].translate.called: has 17 entries; at most 16 are possible"},
		{"bad never reached", []Config{good, {Name: "s", From: []string{"platform"}, Prefix: "+4930", Trunk: "carrier-a"}},
			`[1]: is never reached: route "r" takes all its calls; move it before routes[0], or remove it`},
		{"bad never reached from anywhere", []Config{{Name: "all", Group: "carriers"}, good},
			`[1]: is never reached: route "all" takes all its calls; move it before routes[0], or remove it`},
		{"bad never reached: range in prefix", after(Config{Prefix: "+4930"}, calledIs(Numbers{Range: "+493010-+493019"})), unreach},
		{"bad never reached: range in range", after(calledIs(Numbers{Range: "+493000-+493099"}), calledIs(Numbers{Range: "+493010-+493099"})), unreach},
		{"OK longer range", after(calledIs(Numbers{Range: "+493000-+493099"}), calledIs(Numbers{Range: "+4930100-+4930199"})), ""},
		{"OK prefix behind range", after(calledIs(Numbers{Range: "+493000-+493099"}), Config{Prefix: "+49300"}), ""},
		{"bad never reached: same regexp", after(calledIs(Numbers{Regexp: "^1"}), Config{Prefix: "2", Called: Numbers{Regexp: "^1"}}), unreach},
		{"OK other regexp", after(calledIs(Numbers{Regexp: "^1"}), calledIs(Numbers{Regexp: "^12"})), ""},
		{"bad never reached: any value of the header", after(Config{Header: Header{Name: "X-A"}}, Config{Header: Header{Name: "x-a", Regexp: "b"}}), unreach},
		{"OK some values of the header", after(Config{Header: Header{Name: "X-A", Regexp: "b"}}, Config{Header: Header{Name: "X-A"}}), ""},
		{"bad never reached: hours within", after(Config{Time: night}, Config{Time: Time{Days: []string{"tue"}, Hours: "00:00-06:00", Zone: "Europe/Berlin"}}), unreach},
		{"bad never reached: all day is no time", after(Config{Time: Time{Days: []string{"mon-sun"}}}, Config{}), unreach},
		{"OK hours beyond", after(Config{Time: night}, Config{Time: Time{Days: []string{"mon"}, Hours: "00:00-06:00", Zone: "Europe/Berlin"}}), ""},
		{"OK hours of another zone", after(Config{Time: night}, Config{Time: Time{Days: []string{"tue"}, Hours: "00:00-06:00"}}), ""},
		{"OK a default route before others", after(Config{Default: true}, Config{Prefix: "+49"}), ""},
		{"bad default never reached", after(Config{Default: true}, Config{}), `[0]: is never reached: route "second" takes all its calls; remove it: default routes come after all others`},
		{"bad regexp covers nothing", after(calledIs(Numbers{Regexp: "("}), Config{}), "[0].called.regexp: is no regular expression: missing closing ): \"(\"; " + syntax},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := ""
			if err := ValidateAll(row.routes, trunks, groups).Err(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// A dial plan of the size that is allowed is checked while somebody waits.
func TestValidateManyIsQuick(t *testing.T) {
	routes := make([]Config, MaxRoutes)
	for i := range routes {
		routes[i] = Config{Name: fmt.Sprintf("r%d", i), Prefix: fmt.Sprintf("+49%05d", i), From: []string{"a"}, Trunk: "a"}
	}
	begun := time.Now()
	if l := ValidateAll(routes, []string{"a"}, nil); len(l) != 0 {
		t.Error(l.Err())
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if l := ValidateAll(append(routes, routes[0]), nil, nil); len(l) != 1 || l[0].Error() != "has 10001 entries; at most 10000 are possible" {
		t.Error(l.Err())
	}
}
