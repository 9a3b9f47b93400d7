package sipua

// fieldID is a header field that the stack itself reads; 0 is any other.
type fieldID uint8

const (
	fOther fieldID = iota
	fVia
	fFrom
	fTo
	fCallID
	fCSeq
	fMaxForwards
	fContact
	fContentType
	fContentLength
	fContentEncoding
	fRecordRoute
	fRequire
	fAccept
	fReason
	fRetryAfter
	fTimestamp
	fAsserted
	fRemoteParty
	fPrivacy
	fieldIDs
)

// fieldName are names as we write them.
var fieldName = [fieldIDs]string{
	fVia: "Via", fFrom: "From", fTo: "To", fCallID: "Call-ID", fCSeq: "CSeq", fMaxForwards: "Max-Forwards",
	fContact: "Contact", fContentType: "Content-Type", fContentLength: "Content-Length",
	fContentEncoding: "Content-Encoding", fRecordRoute: "Record-Route", fRequire: "Require", fAccept: "Accept",
	fReason: "Reason", fRetryAfter: "Retry-After", fTimestamp: "Timestamp", fAsserted: "P-Asserted-Identity",
	fRemoteParty: "Remote-Party-ID", fPrivacy: "Privacy",
}

// compact are the short names registered with IANA. Those of fields that nothing
// here reads are listed too: a short name must never be taken for another field.
var compact = map[byte]string{
	'v': "Via", 'f': "From", 't': "To", 'i': "Call-ID", 'm': "Contact", 'c': "Content-Type",
	'l': "Content-Length", 'e': "Content-Encoding", 'k': "Supported", 's': "Subject", 'o': "Event",
	'r': "Refer-To", 'b': "Referred-By", 'u': "Allow-Events", 'x': "Session-Expires", 'a': "Accept-Contact",
	'j': "Reject-Contact", 'd': "Request-Disposition", 'y': "Identity", 'n': "Identity-Info",
}

// fieldOf maps a lower-case name to its id. It is read only after init.
var fieldOf = func() map[string]fieldID {
	m := make(map[string]fieldID, fieldIDs)
	for id := fOther + 1; id < fieldIDs; id++ {
		m[lower(fieldName[id])] = id
	}
	return m
}()

// single marks fields that may stand in a message only once (RFC 3261 section 7.3.1).
var single = [fieldIDs]bool{
	fFrom: true, fTo: true, fCallID: true, fCSeq: true, fMaxForwards: true, fContentType: true, fContentLength: true,
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// identify returns a field's id and its full name.
func identify(name string) (fieldID, string) {
	if len(name) == 1 {
		full, ok := compact[name[0]|0x20]
		if !ok {
			return fOther, name
		}
		name = full
	}
	var buf [24]byte
	if len(name) > len(buf) {
		return fOther, name
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		buf[i] = c
	}
	id := fieldOf[string(buf[:len(name)])]
	if id != fOther {
		name = fieldName[id]
	}
	return id, name
}
