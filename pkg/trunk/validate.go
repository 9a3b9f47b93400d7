package trunk

import (
	"fmt"

	"github.com/tandem-sbc/tandem/pkg/invalid"
	"github.com/tandem-sbc/tandem/pkg/resolve"
)

// ValidateAll checks each trunk and all of them together; keys start with an
// index: "[1].targets[0]".
func ValidateAll(trunks []Config) invalid.List {
	var l invalid.List
	for i, c := range trunks {
		l.Under(fmt.Sprintf("[%d]", i), c.Validate())
	}
	owner := make(map[peer]string)
	names := make(map[string]bool)
	for i, c := range trunks {
		if c.Name != "" && names[c.Name] {
			l.Add(fmt.Sprintf("[%d].name", i), "give each trunk a name of its own", "%q is another trunk's already", c.Name)
			continue
		}
		names[c.Name] = true
		for j, text := range c.Targets {
			target, err := resolve.ParseTarget(text)
			if err != nil || !target.Addr.IsValid() {
				continue // said by Validate, or for DNS to say
			}
			p := peer{c.Realm, target.Addr}
			if other, taken := owner[p]; taken && other != c.Name {
				l.Add(fmt.Sprintf("[%d].targets[%d]", i, j), "put both in one trunk, or give each peer an address of its own",
					"%s is trunk %q's in realm %q already, and a call from it could be either's", p.addr, other, p.realm)
				continue
			}
			owner[p] = c.Name
		}
	}
	return l
}
