package realm

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Kinds of objects.
const (
	kindNamespace = "namespace"
	kindLink      = "link"
	kindAddress   = "address"
	kindRoute     = "route"
	kindRule      = "rule"
	kindSysctl    = "sysctl"
)

// object is one thing in the kernel that a realm wants.
type object interface {
	// id is its kind and its name.
	id() (kind, name string)
	// want is what it should be, in words.
	want() string
	// look returns what there is instead, in words, "" if there is nothing, and whether that
	// is what is wanted.
	look(v *view) (have string, ok bool)
	// mend makes it what is wanted.
	mend(v *view) error
}

// errWaiting means that what an object hangs on is not there: that one says why.
var errWaiting = errors.New("waits for what it hangs on")

// errForeign means that somebody else's object has a name, a route or a tag that we need.
var errForeign = errors.New("is not ours")

// where says which namespace an object is in.
type where bool

const (
	home  where = false
	outer where = true // the namespace of the tunnels' outer side
)

// view is what a realm's objects are compared with.
type view struct {
	node, realm string
	home        *space
	// outer is nil while there is no such namespace.
	outer *space
	// made is set when a device was made: one with the ifindex of a former one is another.
	made bool
	// removed is set when something was taken away.
	removed bool
	log     func(object string, args ...any)
	// unfit are devices that are not as they should be: nothing may hang on them, least of all an
	// address on a device that is outside of its VRF, or somebody else's.
	unfit map[spot]bool
}

func (v *view) in(w where) *space {
	if w == outer {
		return v.outer
	}
	return v.home
}

// device returns a device as it is, or nil.
func (v *view) device(w where, name string) (*space, *device) {
	s := v.in(w)
	if s == nil {
		return nil, nil
	}
	return s, s.devices[name]
}

// fit returns a device that is as it should be, or nil.
func (v *view) fit(w where, name string) (*space, *device) {
	if v.unfit[spot{w, name}] {
		return v.in(w), nil
	}
	return v.device(w, name)
}

// spot is a device's place.
type spot struct {
	where
	device string
}

// ours reports whether a device was made by this node.
func (v *view) ours(d *device) bool {
	m, ok := parseMark(d.alias)
	return ok && m.node == v.node || unfinished(d)
}

// unfinished tells a device that we made and did not come to mark: its group can be given
// when it is made, its alias only after.
func unfinished(d *device) bool { return d.alias == "" && d.group == protocol }

// wanted is an object of a realm, and what hangs on it.
type wanted struct {
	object
	// vital means that without it nothing of the realm works, or nothing of the tunnels of these
	// ranks.
	vital bool
	ranks []int
	// guards is a VRF that nothing may be put into without it, or "".
	guards string
}

// outcome is what became of a wanted object.
type outcome struct {
	call.NetworkObject
	vital bool
	ranks []int
	// mended is true if it had to be put right, and was; had is what was there before.
	mended bool
	had    string
}

// settle compares an object with what there is, and mends it.
func (w wanted) settle(v *view) outcome {
	kind, name := w.id()
	o := outcome{NetworkObject: call.NetworkObject{Kind: kind, Name: name, Want: w.want()}, vital: w.vital, ranks: w.ranks}
	var ok bool
	if o.Have, ok = w.look(v); ok {
		o.State = call.ObjectOK
		return o
	}
	o.State = call.ObjectDiffers
	if o.Have == "" {
		o.State = call.ObjectMissing
	}
	err := w.mend(v)
	if l, ok := w.object.(link); ok && err != nil {
		v.unfit[spot{l.where, l.name}] = true
	}
	if w.guards != "" && err != nil {
		v.unfit[spot{home, w.guards}] = true
	}
	switch {
	case errors.Is(err, errWaiting):
		return o
	case err != nil:
		o.State, o.Problem = call.ObjectFailed, err.Error()
		return o
	}
	o.had, o.mended = o.Have, true
	o.Have, o.State = o.Want, call.ObjectOK
	v.log(kind+" "+name, "had", o.had, "has", o.Want)
	return o
}

// sysctls are kernel parameters of a device, or of a namespace if it is "".
type sysctls struct {
	where
	device string
	list   []setting
	// unlessAddressed leaves them alone while the device has an address: somebody else uses it.
	unlessAddressed bool
}

// setting is a kernel parameter below /proc/sys/net, with %s for the device.
type setting struct{ key, value string }

// path is the file of a setting.
func (s sysctls) path(of setting) string {
	return "/proc/sys/net/" + strings.ReplaceAll(of.key, "%s", s.device)
}

// short is how people name a setting.
func (of setting) short() string {
	if strings.Contains(of.key, "%s") {
		return of.key[strings.LastIndexByte(of.key, '/')+1:]
	}
	return strings.TrimPrefix(of.key, "ipv4/")
}

func (s sysctls) id() (kind, name string) {
	switch {
	case s.device != "":
		return kindSysctl, s.device
	case s.where == outer:
		return kindSysctl, "namespace"
	default:
		return kindSysctl, "host"
	}
}

func (s sysctls) want() string {
	var words []string
	for _, of := range s.list {
		words = append(words, of.short()+"="+of.value)
	}
	return strings.Join(words, " ")
}

func (s sysctls) look(v *view) (have string, ok bool) {
	in, d := v.device(s.where, s.device)
	if in == nil || d == nil && s.device != "" {
		return "", false
	}
	if s.unlessAddressed && len(in.addresses[d.index]) > 0 {
		return "left alone: the interface has an address", true
	}
	ok = true
	var words []string
	err := in.do(func() error {
		for _, of := range s.list {
			value, err := os.ReadFile(s.path(of))
			if errors.Is(err, os.ErrNotExist) { // a kernel without IPv6, for one
				continue
			}
			if err != nil {
				return err
			}
			is := strings.TrimSpace(string(value))
			words = append(words, of.short()+"="+is)
			ok = ok && is == of.value
		}
		return nil
	})
	if err != nil {
		return err.Error(), false
	}
	return strings.Join(words, " "), ok
}

func (s sysctls) mend(v *view) error {
	in, d := v.fit(s.where, s.device)
	if in == nil || d == nil && s.device != "" {
		return errWaiting
	}
	if s.where == home && s.device == "" {
		if err := in.keepFilters(); err != nil {
			return err
		}
	}
	return s.write(in)
}

// keepFilters has devices that are not ours filter as before when the value for all devices,
// which counts if it is the larger, becomes 0.
func (s *space) keepFilters() error {
	return s.do(func() error {
		all, err := readFilter("all")
		if err != nil || all == 0 {
			return err
		}
		for name, d := range s.devices {
			if marked(d) || unfinished(d) {
				continue
			}
			is, err := readFilter(name)
			if errors.Is(err, os.ErrNotExist) || err == nil && is >= all { // gone, or without IPv4
				continue
			}
			if err == nil {
				err = os.WriteFile(filterPath(name), []byte(strconv.Itoa(all)), 0)
			}
			if err != nil {
				return fmt.Errorf("rp_filter of %s: %w", name, err)
			}
		}
		return nil
	})
}

func filterPath(device string) string { return "/proc/sys/net/ipv4/conf/" + device + "/rp_filter" }

func readFilter(device string) (int, error) {
	value, err := os.ReadFile(filterPath(device))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(value)))
}

// write sets those that differ: one that cannot be written, in a container, may be right already.
func (s sysctls) write(in *space) error {
	return in.do(func() error {
		for _, of := range s.list {
			path := s.path(of)
			value, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) || err == nil && strings.TrimSpace(string(value)) == of.value {
				continue
			}
			if err := os.WriteFile(path, []byte(of.value), 0); err != nil {
				return fmt.Errorf("set %s to %s: %w", path, of.value, err)
			}
		}
		return nil
	})
}
