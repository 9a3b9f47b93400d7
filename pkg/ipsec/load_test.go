package ipsec

import (
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// I1, I2, I3, I4: what charon is told of a tunnel.
func TestConnection(t *testing.T) {
	x := testTunnel()
	inner := netip.MustParseAddr("10.60.0.1")
	m, err := connection(x, inner, credentials{psk: []byte("s")})
	if err != nil {
		t.Fatal(err)
	}
	conn := section(m, "primary")
	for key, want := range map[string]string{
		"version": "2", "mobike": "no", "childless": "prefer", "unique": "never", "keyingtries": "1", "encap": "no",
		"dpd_delay": "30s", "reauth_time": "0", "rekey_time": "69120s", "rand_time": "8640s", "over_time": "17280s", "if_id_in": "1", "if_id_out": "1",
	} {
		if got := text(conn, key); got != want {
			t.Errorf("%s = %s, want %s", key, got, want)
		}
	}
	child := section(section(conn, "children"), "primary")
	for key, want := range map[string]string{
		"mode": "tunnel", "rekey_time": "3240s", "rand_time": "360s", "life_time": "3600s", "start_action": "none", "dpd_action": "clear",
		"close_action": "none", "reqid": "1", "replay_window": "256", "copy_dscp": "out", "hw_offload": "no",
	} {
		if got := text(child, key); got != want {
			t.Errorf("child %s = %s, want %s", key, got, want)
		}
	}
	for key, want := range map[string]string{"local_ts": "10.60.0.1/32", "remote_ts": "10.50.0.0/24", "esp_proposals": strings.Join(x.IKE.ESPProposals, " ")} {
		if got := strings.Join(list(child, key), " "); got != want {
			t.Errorf("%s = %s, want %s", key, got, want)
		}
	}
	if got := text(section(conn, "local"), "id") + " " + text(section(conn, "remote"), "id"); got != "192.0.2.1 192.0.2.2" {
		t.Errorf("identities %s", got)
	}
	x.NATTraversal = NATAlways
	if m, err = connection(x, inner, credentials{}); err != nil || text(section(m, "primary"), "encap") != "yes" {
		t.Errorf("encap with nat_traversal: always is %q, %v", text(section(m, "primary"), "encap"), err)
	}
}

// The fingerprint has each change that matters in it, and never the secret.
func TestFingerprints(t *testing.T) {
	inner := netip.MustParseAddr("10.60.0.1")
	of := func(change func(*Tunnel), c credentials) string {
		x := testTunnel()
		change(&x)
		m, err := connection(x, inner, c)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(m.String(), "s3cret") {
			t.Error("the secret is in the connection")
		}
		return fingerprint(m)
	}
	same := of(func(*Tunnel) {}, credentials{})
	if got := of(func(*Tunnel) {}, credentials{psk: []byte("s3cret")}); got != same {
		t.Error("a pre-shared key has changed the connection")
	}
	for name, got := range map[string]string{
		"remote":      of(func(x *Tunnel) { x.Remote = x.Remote.Next() }, credentials{}),
		"networks":    of(func(x *Tunnel) { x.Networks = append(x.Networks, netip.MustParsePrefix("10.51.0.0/24")) }, credentials{}),
		"proposals":   of(func(x *Tunnel) { x.IKE.Proposals = x.IKE.Proposals[:1] }, credentials{}),
		"lifetime":    of(func(x *Tunnel) { x.IKE.ChildLifetime = time.Minute }, credentials{}),
		"if_id":       of(func(x *Tunnel) { x.IfID = 2 }, credentials{}),
		"certificate": of(func(*Tunnel) {}, credentials{chain: [][]byte{[]byte("c")}, ca: [][]byte{[]byte("a")}}),
	} {
		if got == same {
			t.Errorf("a change of %s is not seen", name)
		}
	}
}

// A record is of one process: another one has nothing of what it says.
func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), loadedFile)
	p := process{123, 456}
	r := readRecord(path, p)
	r.Connections["primary"] = prints{"a", "b"}
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	if got := readRecord(path, p); got.Connections["primary"] != (prints{"a", "b"}) {
		t.Errorf("%+v", got)
	}
	if got := readRecord(path, process{123, 457}); len(got.Connections) != 0 {
		t.Errorf("another process has %+v", got)
	}
	for _, broken := range []string{"", "{", "[]", `{"process":"123 456"}`, strings.Repeat(" ", maxLoaded+1)} {
		if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readRecord(path, p); got.Connections == nil || len(got.Connections) != 0 {
			t.Errorf("%.10q is %+v", broken, got)
		}
	}
}

// What is wrong with our own certificate we say ourselves, before the peer sees it.
func TestReadCredentials(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	x := testTunnel()
	x.IKE.Auth, x.IKE.PSK, x.IKE.CA = Certificate, Secret{}, ca.path
	x.IKE.Certificate, x.IKE.Key = ca.issue("gw", x.Local.Addr(), time.Now().Add(time.Hour/2))
	c, err := readCredentials(x, time.Now())
	if err != nil || len(c.chain) != 1 || len(c.ca) != 1 || len(c.key) == 0 {
		t.Fatalf("%d certificates, %d authorities, %v", len(c.chain), len(c.ca), err)
	}
	if left := time.Until(c.until); left > time.Hour/2 || left < time.Hour/2-time.Minute {
		t.Errorf("valid for %s", left)
	}
	_, otherKey := ca.issue("other", x.Local.Addr(), time.Now().Add(time.Hour))
	garbage := filepath.Join(dir, "garbage.pem")
	if err := os.WriteFile(garbage, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		name, cause, words string
		change             func(*Tunnel)
	}{
		{"no certificate", causeKey, "no such file", func(x *Tunnel) { x.IKE.Certificate = "/nowhere" }},
		{"no authority", causeKey, "no such file", func(x *Tunnel) { x.IKE.CA = "/nowhere" }},
		{"key for a certificate", causeKey, "has no PEM certificate", func(x *Tunnel) { x.IKE.Certificate = filepath.Join(dir, "gw.key") }},
		{"garbage", causeKey, "certificate 1", func(x *Tunnel) { x.IKE.Certificate = garbage }},
		{"another key", causeKey, "not the key of", func(x *Tunnel) { x.IKE.Key = otherKey }},
		{"certificate for a key", causeKey, "is no private key", func(x *Tunnel) { x.IKE.Key = mustSecret("file:" + ca.path) }},
		{"another identity", causeIdentity, "gw.example.net", func(x *Tunnel) { x.IKE.LocalID = "gw9.example.net" }},
	} {
		t.Run(bad.name, func(t *testing.T) {
			x := x
			bad.change(&x)
			_, err := readCredentials(x, time.Now())
			var f failure
			if !errors.As(err, &f) || f.cause != bad.cause {
				t.Fatalf("error %v, want cause %s", err, bad.cause)
			}
			contains(t, f.reason, bad.words, "tunnel primary")
		})
	}
	for _, at := range []time.Time{time.Now().Add(45 * time.Minute), time.Now().Add(-36 * time.Hour)} {
		var f failure
		if _, err := readCredentials(x, at); !errors.As(err, &f) || f.cause != causeExpired {
			t.Errorf("at %s: %v", at, err)
		}
	}
	x.IKE.LocalID = "CN=gw"
	if _, err := readCredentials(x, time.Now()); err != nil {
		t.Errorf("a subject is charon's to compare: %v", err)
	}
}

func FuzzParseCertificates(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		certs, err := parseCertificates(b)
		if (err == nil) != (len(certs) > 0) || len(certs) > maxCertificates {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
	})
}
