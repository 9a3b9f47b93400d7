package ipsec

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// attempts are what charon said about attempts that came to nothing, as initiator, without the
// lines about packets. Those with a version were recorded in the lab with that version.
var attempts = []struct {
	name  string
	auth  string
	lines []string
	cause string
}{
	{"wrong pre-shared key (6.0.1, 5.9.8)", PSK, []string{
		"initiating IKE_SA primary[1] to 192.0.2.2",
		"selected proposal: IKE:AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384",
		"authentication of '192.0.2.1' (myself) with pre-shared key",
		"parsed IKE_AUTH response 1 [ N(AUTH_FAILED) ]",
		"received AUTHENTICATION_FAILED notify error",
		"establishing CHILD_SA 'primary' failed",
	}, causePSK},
	{"our certificate is refused (6.0.1, 5.9.8)", Certificate, []string{
		"authentication of '192.0.2.1' (myself) with ECDSA_WITH_SHA256_DER successful",
		"sending end entity cert \"CN=gw\"",
		"received AUTHENTICATION_FAILED notify error",
	}, causeAuth},
	{"no common IKE proposal (6.0.1, 5.9.8)", PSK, []string{
		"parsed IKE_SA_INIT response 0 [ N(NO_PROP) ]",
		"received NO_PROPOSAL_CHOSEN notify error",
	}, causeProposal},
	{"no common ESP proposal (6.0.1, 5.9.8)", PSK, []string{
		"IKE_SA primary[1] established between 192.0.2.1[192.0.2.1]...192.0.2.2[192.0.2.2]",
		"parsed CREATE_CHILD_SA response 2 [ N(NO_PROP) ]",
		"received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built",
		"failed to establish CHILD_SA, keeping IKE_SA",
	}, causeProposal},
	{"traffic selectors (6.0.1, 5.9.8)", PSK, []string{
		"received TS_UNACCEPTABLE notify, no CHILD_SA built",
		"failed to establish CHILD_SA, keeping IKE_SA",
	}, causeSelectors},
	{"peer's certificate has expired (6.0.1, 5.9.8)", Certificate, []string{
		"received end entity cert \"CN=peer\"",
		"  using certificate \"CN=peer\"",
		"  using trusted ca certificate \"CN=ca\"",
		"subject certificate invalid (valid from Nov 20 10:45:36 2026 to Nov 21 09:45:36 2026)",
		"no trusted ECDSA public key found for '192.0.2.2'",
		"generating INFORMATIONAL request 2 [ N(AUTH_FAILED) ]",
	}, causeExpired},
	{"peer's certificate is of another authority (6.0.1, 5.9.8)", Certificate, []string{
		"received end entity cert \"CN=peer\"",
		"  using certificate \"CN=peer\"",
		"no issuer certificate found for \"CN=peer\"",
		"  issuer is \"CN=ca\"",
		"no trusted ECDSA public key found for '192.0.2.2'",
	}, causeUntrusted},
	{"peer's certificate was revoked", Certificate, []string{
		"certificate was revoked on Nov 20 10:45:36 UTC 2026, reason: key compromise",
		"no trusted RSA public key found for '192.0.2.2'",
	}, causeUntrusted},
	{"peer has another identity", PSK, []string{
		"constraint check failed: identity '192.0.2.2' required",
		"selected peer config 'primary' unacceptable: constraint checking failed",
	}, causeIdentity},
	{"no key for the peer's identity", PSK, []string{
		"no shared key found for '192.0.2.1' - 'somebody'",
	}, causeIdentity},
	{"peer knows another key", PSK, []string{
		"tried 1 shared key for '192.0.2.1' - '192.0.2.2', but MAC mismatched",
		"generating INFORMATIONAL request 2 [ N(AUTH_FAILED) ]",
	}, causePSK},
	{"no private key", Certificate, []string{"no private key found for '192.0.2.1'"}, causeKey},
	{"no route", PSK, []string{
		"sending packet: from 192.0.2.1[500] to 192.0.2.2[500] (404 bytes)",
		"error writing to socket: Network is unreachable",
	}, causeUnreachable},
	{"no answer", PSK, []string{
		"retransmit 1 of request with message ID 0",
		"giving up after 3 retransmits",
		"establishing IKE_SA failed, peer not responding",
	}, causeUnreachable},
	{"another refusal", PSK, []string{"received TEMPORARY_FAILURE notify, no CHILD_SA built"}, causeRefused},
	{"ended by the peer", PSK, []string{"received DELETE for IKE_SA primary[1]"}, causeRefused},
}

func TestExplain(t *testing.T) {
	failed := errors.New("vici: command failed: establishing CHILD_SA 'primary' failed")
	for _, c := range attempts {
		t.Run(c.name, func(t *testing.T) {
			x := testTunnel()
			x.IKE.Auth = c.auth
			f := explain(x, c.lines, failed, true)
			if f.cause != c.cause {
				t.Errorf("cause %s (%s), want %s", f.cause, f.reason, c.cause)
			}
			contains(t, f.reason, "realm carrier-a", "tunnel primary")
		})
	}
}

// Silence is a peer that is not there, also when charon has not given up yet.
func TestExplainSilence(t *testing.T) {
	lines := []string{"initiating IKE_SA primary[1] to 192.0.2.2", "sending packet: from 192.0.2.1[500] to 192.0.2.2[500] (404 bytes)"}
	for _, err := range []error{
		errors.New("vici: command failed: CHILD_SA 'primary' not established after 3000ms"),
		fmt.Errorf("initiate: %w", context.DeadlineExceeded),
	} {
		if f := explain(testTunnel(), lines, err, false); f.cause != causeUnreachable {
			t.Errorf("%v: cause %s", err, f.cause)
		}
	}
	if f := explain(testTunnel(), nil, errors.New("connection reset"), false); f.cause != causeInternal {
		t.Errorf("cause %s", f.cause)
	}
}

// Every cause has a sentence that names realm and tunnel, and what charon said.
func TestBecause(t *testing.T) {
	seen := make(map[string]bool)
	for _, cause := range []string{
		causePSK, causeAuth, causeProposal, causeExpired, causeUntrusted, causeIdentity, causeSelectors, causeUnreachable, causeRefused,
		causeNAT, causeDPD, causeDeleted, causeKey, causeNamespace, causeCharon, causeMonitor, causeInternal,
	} {
		f := because(testTunnel(), cause, "what was said")
		contains(t, f.reason, "realm carrier-a", "tunnel primary", "what was said")
		if f.cause != cause || seen[f.reason] {
			t.Errorf("%s: %+v", cause, f)
		}
		seen[f.reason] = true
	}
}

// Lines of the log that say nothing about a failure are none.
func TestRecogniseNothing(t *testing.T) {
	for _, line := range []string{
		"", "sending DPD request", "CHILD_SA primary{1} established with SPIs c93a1513_i cc5f9a60_o and TS 10.60.0.1/32 === 10.50.0.0/24",
		"received packet: from 192.0.2.2[500] to 192.0.2.1[500] (289 bytes)", "added vici connection: primary", "policy already exists, try to update it",
		"retransmit 1 of request with message ID 0", "IKE_SA deleted", "received end entity cert \"CN=peer\"",
	} {
		if cause, _ := recognise([]string{line}); cause != "" {
			t.Errorf("%q is %s", line, cause)
		}
	}
}
