package header

import (
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Anonymous is the display name and the user of a caller who wants privacy, as
// document 001 section 2.11 has it; the host is that of RFC 3323 section 4.1.1.3.
const (
	Anonymous     = "anonymous"
	AnonymousFrom = `"anonymous" <sip:anonymous@anonymous.invalid>`
)

// Identity is who calls, and whom, read from the fields of an INVITE (S12).
type Identity struct {
	From, To call.Party
	Asserted *call.Party
	// Privacy is the value of the Privacy header.
	Privacy string
}

// ReadIdentity reads the caller and the called party. The asserted identity is
// P-Asserted-Identity (a list of at most a sip and a tel URI: the first that can be
// read counts), else Remote-Party-ID. What cannot be read is left out: both are
// optional, and a call is not refused for them.
func ReadIdentity(from, to Address, asserted, remote, privacy string) Identity {
	id := Identity{From: party(from), To: party(to), Privacy: Phrase(privacy)}
	id.Asserted = firstParty(asserted)
	if id.Asserted == nil && remote != "" {
		a, _, err := NextAddress(remote)
		side, given := a.Param("party")
		if err == nil && (!given || strings.EqualFold(side, "calling")) {
			id.Asserted = firstParty(remote)
			if p, _ := a.Param("privacy"); strings.EqualFold(p, "full") {
				id.From.Anonymous = true
			}
		}
	}
	if wantsPrivacy(privacy) {
		id.From.Anonymous = true
	}
	if id.From.Anonymous {
		id.From.Display, id.From.User = Anonymous, Anonymous
		if id.Asserted != nil {
			id.Asserted.Anonymous = true
		}
	}
	return id
}

func party(a Address) call.Party {
	u, err := ParseURI(a.URI)
	if err != nil || !u.Known() {
		return call.Party{Display: a.Display}
	}
	p := call.Party{Display: a.Display, User: u.Number()}
	p.Anonymous = strings.EqualFold(p.User, Anonymous) || strings.EqualFold(u.Host, "anonymous.invalid")
	return p
}

func firstParty(list string) *call.Party {
	for list != "" {
		a, rest, err := NextAddress(list)
		if err != nil {
			return nil
		}
		if p := party(a); p.User != "" {
			return &p
		}
		list = rest
	}
	return nil
}

// wantsPrivacy: any priv-value of RFC 3323 section 4.2 and RFC 3325 section 9.3
// that hides the caller; "none" forbids to hide.
func wantsPrivacy(value string) bool {
	for v := range strings.SplitSeq(value, ";") {
		switch strings.ToLower(Trim(v)) {
		case "id", "user", "header":
			return true
		}
	}
	return false
}

// AppendParty appends a party as a name-addr with our host.
func AppendParty(b []byte, p call.Party, host string) []byte {
	b = AppendDisplay(b, p.Display)
	b = append(b, "<sip:"...)
	if p.User != "" {
		b = AppendUser(b, p.User)
		b = append(b, '@')
	}
	b = append(b, host...)
	return append(b, '>')
}

// AppendFrom appends the value of From without its tag: the party, or nobody.
func AppendFrom(b []byte, p call.Party, host string) []byte {
	if p.Anonymous {
		return append(b, AnonymousFrom...)
	}
	return AppendParty(b, p, host)
}
