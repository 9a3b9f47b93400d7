package scenarios

import (
	"fmt"
	"strings"
	"time"
)

// What SIPp does is written in its XML; these make it, one element each.

const xmlHead = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="story">
`

func element(format string, args ...any) string { return fmt.Sprintf(format, args...) + "\n" }

func pause(d time.Duration) string {
	return element(`<pause milliseconds="%d"/>`, d.Milliseconds())
}

// over ends a scenario: SIPp goes on to answer what is repeated for a moment.
const over = "<label id=\"over\"/>\n<timewait milliseconds=\"300\"/>\n</scenario>\n"

// message is one that is sent, its body the description of a phone that speaks A-law. It is
// repeated until something comes if it has to be confirmed.
func message(confirmed, described bool, lines ...string) string {
	text := strings.Join(lines, "\n")
	if !described {
		text += "\nContent-Length: 0\n\n"
	} else {
		text += `
Content-Type: application/sdp
Content-Length: [len]

v=0
o=- [pid][call_number] 1 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8
a=rtpmap:8 PCMA/8000
a=ptime:20
a=sendrecv
`
	}
	retrans := ""
	if confirmed {
		retrans = ` retrans="500"`
	}
	return element("<send%s><![CDATA[\n\n%s\n]]></send>", retrans, text)
}

// response is what a callee says to the last request.
func response(status int, described bool, headers ...string) string {
	lines := []string{
		fmt.Sprintf("SIP/2.0 %d Said so", status), "[last_Via:]", "[last_Record-Route:]", "[last_From:]",
		"[last_To:];tag=[pid]s[call_number]", "[last_Call-ID:]", "[last_CSeq:]",
		"Contact: <sip:callee@[local_ip]:[local_port]>",
	}
	return message(status >= 200, described, append(lines, headers...)...)
}

// agreed answers a request that needs no more than that. Its To has a tag already.
func agreed() string {
	return message(false, false, "SIP/2.0 200 OK", "[last_Via:]", "[last_From:]", "[last_To:]", "[last_Call-ID:]", "[last_CSeq:]")
}

// callee is a scenario that begins with an INVITE; OPTIONS are answered in its place.
func callee(steps ...string) string {
	return xmlHead +
		"<recv request=\"OPTIONS\" optional=\"true\" next=\"probed\"/>\n" +
		`<recv request="INVITE" rrs="true"><action>
<ereg regexp=".*" search_in="hdr" header="Via:" assign_to="via"/>
<ereg regexp=".*" search_in="hdr" header="CSeq:" assign_to="cseq"/>
</action></recv>
<Reference variables="via,cseq"/>
` + strings.Join(steps, "") + "<nop next=\"over\"/>\n<label id=\"probed\"/>\n" + response(200, false) + over
}

// answers is the rest of a call that the callee takes and the other side ends.
func answers() string {
	return response(200, true) +
		// An INVITE that comes again late SIPp does not always know for one.
		"<recv request=\"INVITE\" optional=\"true\"/>\n<recv request=\"ACK\"/>\n<recv request=\"BYE\"/>\n" + agreed()
}

func refuses(status int, headers ...string) string {
	return response(status, false, headers...) + "<recv request=\"INVITE\" optional=\"true\"/>\n<recv request=\"ACK\"/>\n"
}

// cancelled waits for the CANCEL. The 487 is for the INVITE, which is not the last request.
func cancelled() string {
	return "<recv request=\"INVITE\" optional=\"true\"/>\n<recv request=\"CANCEL\"/>\n" + response(200, false) +
		message(true, false, "SIP/2.0 487 Request Terminated", "Via:[$via]", "[last_From:]",
			"[last_To:];tag=[pid]s[call_number]", "[last_Call-ID:]", "CSeq:[$cseq]") +
		"<recv request=\"ACK\"/>\n"
}

// refusals are the statuses that a caller may be told.
var refusals = []int{302, 400, 403, 404, 408, 480, 484, 486, 487, 488, 500, 502, 503, 504, 600, 603}

// dialled is what a caller says of whom it calls.
type dialled struct {
	// user of the Request-URI, and of To; by is the user of From.
	user, to, by string
	// headers of the INVITE besides.
	headers []string
}

// uri is the Request-URI.
func (d dialled) uri() string { return "sip:" + d.user + "@[remote_ip]:[remote_port]" }

// request is what a caller sends to whom it calls.
func (d dialled) request(method, uri string, cseq int, more ...string) []string {
	return append([]string{
		method + " " + uri + " SIP/2.0",
		"Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=[branch]", "Max-Forwards: 70",
		"From: <sip:" + d.by + "@[local_ip]:[local_port]>;tag=[pid]c[call_number]",
		"To: <sip:" + d.to + "@[remote_ip]:[remote_port]>[peer_tag_param]",
		"Call-ID: [call_id]", fmt.Sprintf("CSeq: %d %s", cseq, method),
		"Contact: <sip:caller@[local_ip]:[local_port]>",
	}, more...)
}

// inviting is a scenario that begins with the INVITE.
func (d dialled) inviting(steps ...string) string {
	invite := strings.Replace(message(true, true, d.request("INVITE", d.uri(), 1, d.headers...)...), "[peer_tag_param]", "", 1)
	return xmlHead + invite + strings.Join(steps, "") + over
}

// repeated is a request of the INVITE's own transaction, from the last response to it: the ACK
// of a refusal and a CANCEL (RFC 3261 sections 17.1.1.3 and 9.1).
func (d dialled) repeated(method string) string {
	return message(method == "CANCEL", false, method+" "+d.uri()+" SIP/2.0", "[last_Via:]", "Max-Forwards: 70", "[last_From:]", "[last_To:]",
		"[last_Call-ID:]", "CSeq: 1 "+method)
}

// caller calls, and hangs up after a while if it is answered. A refusal is as good: what
// it was the captures say.
func caller(d dialled, hold time.Duration) string {
	var refused strings.Builder
	for _, status := range refusals {
		refused.WriteString(element(`<recv response="%d" optional="true" next="refused"/>`, status))
	}
	return d.inviting(
		"<recv response=\"100\" optional=\"true\"/>\n<recv response=\"180\" optional=\"true\"/>\n<recv response=\"183\" optional=\"true\"/>\n",
		refused.String(), "<recv response=\"200\" rrs=\"true\"/>\n",
		message(false, false, d.request("ACK", "[next_url]", 1, "[routes]")...),
		pause(hold),
		message(true, false, d.request("BYE", "[next_url]", 2, "[routes]")...),
		"<recv response=\"200\" next=\"over\"/>\n<label id=\"refused\"/>\n",
		d.repeated("ACK"))
}

// giver calls and gives up after a while, if nothing rings before.
func giver(d dialled, after time.Duration) string {
	return d.inviting("<recv response=\"100\"/>\n", pause(after), d.repeated("CANCEL"),
		// The two may come in either order.
		"<recv response=\"487\" optional=\"true\" next=\"ended\"/>\n<recv response=\"200\"/>\n<recv response=\"487\"/>\n<label id=\"ended\"/>\n",
		d.repeated("ACK"))
}
