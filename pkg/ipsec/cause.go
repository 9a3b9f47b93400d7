package ipsec

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Causes of a tunnel that is not up: labels of metrics, so their number is fixed.
const (
	causePSK         = "psk-mismatch"
	causeAuth        = "authentication-failed"
	causeProposal    = "proposal-mismatch"
	causeExpired     = "certificate-expired"
	causeUntrusted   = "certificate-untrusted"
	causeIdentity    = "identity-mismatch"
	causeSelectors   = "traffic-selectors"
	causeUnreachable = "unreachable"
	causeRefused     = "refused"
	causeNAT         = "nat-detected"
	causeDPD         = "dpd-timeout"
	causeDeleted     = "deleted-by-peer"
	causeKey         = "key-missing"
	causeNamespace   = "namespace-missing"
	causeCharon      = "charon-missing"
	causeMonitor     = "monitor-silent"
	causeInternal    = "internal"
)

// failure is why a tunnel is not up: one of the causes, and a sentence that names realm
// and tunnel and says what to do.
type failure struct{ cause, reason string }

// Error implements error.
func (f failure) Error() string { return f.reason }

// rule tells a cause from a line of charon's log.
type rule struct {
	line  *regexp.Regexp
	cause string
}

// rules in order of how much they tell: of several lines about one attempt the first rule
// that fits any of them counts. A certificate that we refuse, say, is followed by lines
// that sound as if the peer had no certificate. The lines are those of strongSwan 5.9.8 and 6.0.1.
var rules = []rule{
	{regexp.MustCompile(`(subject|issuer) certificate invalid \(valid from`), causeExpired},
	{regexp.MustCompile(`certificate was revoked|is not trusted|` +
		`no (trusted \S+ public key|trusted certificate|issuer certificate) found`), causeUntrusted},
	{regexp.MustCompile(`constraint check failed: identity|ID '.*' (not confirmed|does not match)|` +
		`no matching peer config found|no shared key found for`), causeIdentity},
	{regexp.MustCompile(`no private key found for|building signature.* failed`), causeKey},
	{regexp.MustCompile(`but MAC mismatched`), causePSK},
	{regexp.MustCompile(`received AUTHENTICATION_FAILED notify`), causeAuth},
	{regexp.MustCompile(`received NO_PROPOSAL_CHOSEN notify|no (acceptable|matching) proposal found|` +
		`received proposals (un|in)acceptable|no acceptable \S+ found`), causeProposal},
	{regexp.MustCompile(`received TS_UNACCEPTABLE notify|traffic selectors .* (un|in)acceptable`), causeSelectors},
	{regexp.MustCompile(`error writing to socket|giving up after \d+ retransmits|peer not responding`), causeUnreachable},
	{regexp.MustCompile(`received (DELETE|delete) for IKE_SA`), causeDeleted},
	{regexp.MustCompile(`received [A-Z][A-Z_]+ notify(,| error)`), causeRefused},
}

// unasked are causes of lines that are worth a word outside an attempt of our own: the
// peer may be the one that tries.
var unasked = map[string]bool{
	causeExpired: true, causeUntrusted: true, causeIdentity: true, causeKey: true, causePSK: true, causeProposal: true, causeSelectors: true,
}

// recognise finds the line that tells most, and the cause that it tells; empty if none does.
func recognise(lines []string) (cause, line string) {
	for _, r := range rules {
		for _, l := range lines {
			if r.line.MatchString(l) {
				return r.cause, l
			}
		}
	}
	return "", ""
}

// explain makes a failure of what charon said about an attempt at t, and of the error that it
// ended with. answered is whether the peer has said anything.
func explain(t Tunnel, lines []string, err error, answered bool) failure {
	cause, line := recognise(lines)
	switch {
	case cause == causeAuth && t.IKE.Auth == PSK:
		cause = causePSK
	case cause == causeDeleted:
		// In an attempt it is the peer's way to say no.
		cause = causeRefused
	case cause == "" && !answered && (err == nil || isTimeout(err)):
		cause = causeUnreachable
	case cause == "":
		cause = causeInternal
		line = lastOf(lines)
		if err != nil {
			line = err.Error()
		}
	}
	return because(t, cause, line)
}

func lastOf(lines []string) string {
	if len(lines) == 0 {
		return "no reason given"
	}
	return lines[len(lines)-1]
}

// notEstablished is how charon answers an initiate request that took longer than it asked for.
var notEstablished = regexp.MustCompile(`not established after \d+ms`)

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || notEstablished.MatchString(err.Error())
}

// because is the failure of t with a cause; line is what charon or the system said.
func because(t Tunnel, cause, line string) failure {
	say := func(format string, args ...any) failure {
		reason := fmt.Sprintf("realm %s, tunnel %s: ", t.Realm, t.Name) + fmt.Sprintf(format, args...)
		if line != "" {
			reason += fmt.Sprintf(" (%s)", clip(line))
		}
		return failure{cause, reason}
	}
	switch cause {
	case causePSK:
		return say("pre-shared key or identities differ from those of peer %s; make psk the same on both sides, "+
			"and compare local_id %q and remote_id %q with the peer's",
			t.Remote, t.localID(), t.remoteID())
	case causeAuth:
		return say("peer %s does not accept our certificate %s; its log says why: it has to trust the issuer, "+
			"expect the identity %q, and itself be remote_id %q",
			t.Remote, t.IKE.Certificate, t.localID(), t.remoteID())
	case causeProposal:
		return say("peer %s accepts none of our algorithms; compare proposals and esp_proposals with the peer's", t.Remote)
	case causeExpired:
		return say("a certificate is not valid now; the one who owns it has to renew it, and both clocks have to be right")
	case causeUntrusted:
		return say("certificate of peer %s is not issued by our ca %s; give the authority that issued it", t.Remote, t.IKE.CA)
	case causeIdentity:
		return say("peer %s is not who it should be; compare remote_id %q with the identity that the peer sends, "+
			"and local_id %q with the one that it expects", t.Remote, t.remoteID(), t.localID())
	case causeSelectors:
		return say("peer %s does not accept our traffic selectors; compare networks and the realm's address with the peer's", t.Remote)
	case causeUnreachable:
		return say("peer %s does not answer; check that it is there, and the way to it: local, gateway, vlan, "+
			"and UDP port 500 in its firewall", t.Remote)
	case causeRefused:
		return say("peer %s refuses; its log says why", t.Remote)
	case causeNAT:
		return say("a NAT was found on the way to peer %s, and nat_traversal is never; remove the NAT, or set nat_traversal: auto", t.Remote)
	case causeDPD:
		return say("peer %s no longer answers, and was given up after %s", t.Remote, t.IKE.noticed().Round(time.Millisecond))
	case causeDeleted:
		return say("peer %s has ended the tunnel; its log says why", t.Remote)
	case causeKey:
		return say("a key or certificate cannot be used; correct the file")
	case causeNamespace:
		return say("the network namespace of its outer side is missing; `tandem realms %s` says why", t.Realm)
	case causeCharon:
		return say("strongSwan's IKE daemon is not installed; do: apt-get install charon-systemd")
	case causeMonitor:
		return say("echo requests through the tunnel have no answer")
	}
	return say("the IKE daemon reports an error, its log is beside its socket")
}

// patience is how long to wait after the n-th failure in a row, n from 1. What the peer may
// have mended in the next moment is tried again soon: a peer that has just come back
// may have no configuration yet, and then says NO_PROPOSAL_CHOSEN. What needs people is
// tried less often, so that their logs stay readable.
func patience(cause string, n int) time.Duration {
	longest := 10 * time.Second
	switch cause {
	case causeUnreachable, causeProposal, causeRefused, causeDPD, causeDeleted:
		longest = 3 * time.Second
	}
	return min(time.Duration(max(n, 1))*time.Second, longest)
}
