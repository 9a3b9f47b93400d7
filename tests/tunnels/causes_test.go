package tunnels

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// authority issues certificates for a test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Tandem lab"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue makes a certificate for an identity, and its key, both PEM.
func (a *authority) issue(t *testing.T, id string, until time.Time) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: id}, DNSNames: []string{id},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
}

// certified is a tunnel's ike section with a certificate of the authority.
func (l *lab) certified(t *testing.T, a *authority) []string {
	t.Helper()
	certificate, key := a.issue(t, netlab.GatewayID, time.Now().Add(time.Hour))
	var paths []string
	for name, data := range map[string][]byte{"gateway.crt": certificate, "gateway.key": key, "ca.crt": a.pem} {
		path, err := l.SecretFile(name, string(data))
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "gateway.crt":
			paths = append(paths, "certificate: "+path)
		case "gateway.key":
			paths = append(paths, fmt.Sprintf("key: \"file:%s\"", path))
		default:
			paths = append(paths, "ca: "+path)
		}
	}
	return append(paths, "auth: certificate", "psk:")
}

// TestCauses: each way in which a tunnel does not come up is told in words that name realm,
// tunnel and cause, in the log, by the CLI and as a metric. One with good certificates is up.
func TestCauses(t *testing.T) {
	sites := netlab.ManySites(5)
	topology, all := netlab.TrunkedToOne(sites)
	need(t)
	l := wireTo(t, topology, sites, []netlab.Site{all})
	ca := newAuthority(t)
	good, key := ca.issue(t, netlab.PeerID("carrier-05"), time.Now().Add(time.Hour))
	expired, expiredKey := ca.issue(t, netlab.PeerID("carrier-03"), time.Now().Add(-time.Hour))
	peer := l.peers[all.Name]
	for name, file := range map[string][3][]byte{"good": {good, key, ca.pem}, "expired": {expired, expiredKey, ca.pem}} {
		if err := peer.Certificate(name, file[0], file[1], file[2]); err != nil {
			t.Fatal(err)
		}
	}
	var connections []netlab.Connection
	for i, s := range sites {
		c := s.Connections()[0]
		c.IfID = uint32(i + 1)
		switch i {
		case 0:
			c.Secret = "another secret than the gateway's"
		case 1:
			c.Proposals = "aes128-sha256-ecp256"
		case 2:
			c.Secret, c.Certificate = "", "expired"
		case 4:
			c.Secret, c.Certificate = "", "good"
		}
		connections = append(connections, c)
	}
	if err := l.Cut(all.Name, netlab.Device(3)); err != nil {
		t.Fatal(err)
	}
	if err := peer.Load(t.Context(), connections...); err != nil {
		t.Fatal(err)
	}
	certified := l.certified(t, ca)
	l.run(t, netlab.TrunkOptions{Metrics: metricsAddress, IKE: map[string][]string{"tunnel-03": certified, "tunnel-05": certified}})
	want := map[string]struct{ cause, word string }{
		"tunnel-01": {"psk-mismatch", "pre-shared key"}, "tunnel-02": {"proposal-mismatch", "proposal"},
		"tunnel-03": {"certificate-expired", "not valid"}, "tunnel-04": {"unreachable", "answer"},
	}
	l.await(t, "each tunnel has its cause", func() string {
		var left []string
		for _, tunnel := range l.tunnels(t) {
			if w, bad := want[tunnel.Name]; bad && tunnel.Cause != w.cause || !bad && tunnel.State != call.TunnelUp {
				left = append(left, fmt.Sprintf("%s is %s for %q: %s", tunnel.Name, tunnel.State, tunnel.Cause, tunnel.Reason))
			}
		}
		return strings.Join(left, "; ")
	})
	metrics, tunnels, trunks := l.metrics(t), cli[[]call.Tunnel](t, l, "tunnels"), l.trunks(t)
	written := l.written(t)
	for _, tunnel := range tunnels {
		w, bad := want[tunnel.Name]
		if !bad {
			continue
		}
		place := fmt.Sprintf("realm %s, tunnel %s: ", tunnel.Realm, tunnel.Name)
		if tunnel.Cause != w.cause || !strings.HasPrefix(tunnel.Reason, place) || !strings.Contains(tunnel.Reason, w.word) {
			t.Errorf("the CLI says of %s %q, %q, want %q and a sentence with %q", tunnel.Name, tunnel.Cause, tunnel.Reason, w.cause, w.word)
		}
		if !strings.Contains(written["the log"], place) {
			t.Errorf("the log does not say %q", place)
		}
		for _, m := range []string{
			fmt.Sprintf("tandem_tunnel_failures_total{cause=%q,realm=%q,tunnel=%q}", w.cause, tunnel.Realm, tunnel.Name),
			fmt.Sprintf("tandem_tunnel_cause_info{cause=%q,realm=%q,tunnel=%q} 1", w.cause, tunnel.Realm, tunnel.Name),
		} {
			if !strings.Contains(metrics, m) {
				t.Errorf("metrics have no %s", m)
			}
		}
		t.Logf("%s", tunnel.Reason)
	}
	for _, trunk := range trunks {
		if bad := trunk.Name != "carrier-05"; bad && (trunk.State != "out-of-service" || trunk.Reason == "") {
			t.Errorf("trunk %s is %s: %q", trunk.Name, trunk.State, trunk.Reason)
		}
	}
	charons := 0
	for where, text := range written {
		if strings.Contains(text, netlab.SharedSecret) {
			t.Errorf("the pre-shared key is in %s", where)
		}
		if filepath.Base(where) == "charon.log" && text != "" {
			charons++
		}
	}
	if charons != len(sites) {
		t.Errorf("%d charons have written a log, want %d: the test could not tell", charons, len(sites))
	}
}
