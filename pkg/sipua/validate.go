package sipua

import (
	"strings"

	"github.com/tandem-sbc/tandem/pkg/header"
)

// Methods by name.
const (
	methodInvite  = "INVITE"
	methodACK     = "ACK"
	methodBye     = "BYE"
	methodCancel  = "CANCEL"
	methodOptions = "OPTIONS"
	methodInfo    = "INFO"
	methodRefer   = "REFER"
	methodNotify  = "NOTIFY"

	methodRegister = "REGISTER"
)

// allowed is the value of Allow (S2). INFO is for use out of a dialog only.
const allowed = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, REFER, NOTIFY"

const (
	allowField  = "Allow: " + allowed + "\r\n"
	acceptField = "Accept: application/sdp\r\n"
)

// methods are those the stack knows: true for what S2 supports, false for what S3
// refuses with 405. Any other gets 501.
var methods = map[string]bool{
	methodInvite: true, methodACK: true, methodBye: true, methodCancel: true,
	methodOptions: true, methodInfo: true, methodRefer: true, methodNotify: true,
	"SUBSCRIBE": false, "MESSAGE": false, "UPDATE": false, "PRACK": false, "PUBLISH": false, methodRegister: false,
}

func known(method string) bool {
	_, ok := methods[method]
	return ok
}

var (
	notImplemented = &fault{status: 501, phrase: "Not Implemented", extra: allowField}
	notAllowed     = &fault{status: 405, phrase: "Method Not Allowed", extra: allowField}
	looped         = &fault{status: 482, phrase: "Loop Detected"}
	noTransaction  = &fault{status: 481, phrase: "Call/Transaction Does Not Exist"}
	declined       = &fault{status: 603, phrase: "Decline"}
	badScheme      = &fault{status: 416, phrase: "Unsupported URI Scheme"}
	tooManyHops    = &fault{status: 483, phrase: "Too Many Hops"}
	badContent     = &fault{status: 415, phrase: "Unsupported Media Type", extra: acceptField + "Accept-Encoding: identity\r\n"}
	notAcceptable  = &fault{status: 406, phrase: "Not Acceptable", extra: acceptField}
)

// screen decides what may be asked of us at all, in the order of RFC 3261 section
// 8.2: method, addressee, loops, extensions, content. ACK and CANCEL do not come here.
func (s *Stack) screen(m *message) *fault {
	if supported, ok := methods[m.method]; !ok {
		return notImplemented
	} else if !supported || m.method == methodInfo && m.toTag != "" {
		return notAllowed
	}
	uri, err := header.ParseURI(m.uri)
	switch {
	case err != nil || uri.Headers != "":
		return bad("Headers In Request-URI")
	case uri.Scheme != "sip" && uri.Scheme != "tel":
		return badScheme
	}
	if m.toTag == "" && s.wentThroughHere(m) {
		return looped
	}
	if m.method == methodInvite && m.maxForwards == 0 {
		return tooManyHops
	}
	if required := m.list(fRequire); required != "" {
		if unknown := header.Tokens(required); len(unknown) > 0 {
			return &fault{status: 420, phrase: "Bad Extension", extra: "Unsupported: " + strings.Join(unknown, ", ") + "\r\n"}
		}
	}
	if m.method == methodInvite {
		return m.screenInvite()
	}
	return nil
}

func (m *message) screenInvite() *fault {
	if m.body != "" {
		if m.get(fContentType) == nil {
			return bad("Missing Content-Type")
		}
		if _, unsupported := m.sdp(); unsupported {
			return badContent
		}
	}
	if accept := m.list(fAccept); accept != "" && !acceptsSDP(accept) {
		return notAcceptable
	}
	if !m.hasContact {
		// RFC 2543 did not demand it, and its clients are known by their branch.
		if strings.HasPrefix(m.via.Branch, header.Cookie) {
			return bad("Missing Contact")
		}
		m.contact = m.from
	}
	if uri, err := header.ParseURI(m.contact.URI); err != nil || uri.Scheme != "sip" {
		return bad("Contact Is Not A SIP URI")
	}
	return nil
}

func acceptsSDP(list string) bool {
	for part := range strings.SplitSeq(list, ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch lower(header.Trim(kind)) {
		case "application/sdp", "application/*", "*/*":
			return true
		}
	}
	return false
}

// wentThroughHere reports whether one of the Vias is ours: the request came back
// to us (RFC 3261 section 16.3 item 4, for a B2BUA that has stripped nothing).
func (s *Stack) wentThroughHere(m *message) bool {
	for i := range m.fields {
		if m.fields[i].id != fVia {
			continue
		}
		for list := m.fields[i].value; list != ""; {
			v, err := header.ParseVia(list)
			if err != nil {
				break
			}
			if v.Is(s.host, s.addr.Port()) {
				return true
			}
			list = v.Rest
		}
	}
	return false
}
