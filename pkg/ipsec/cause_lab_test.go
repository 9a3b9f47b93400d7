package ipsec

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// authority issues certificates for the lab.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	path string
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, dir: dir, cert: cert, key: key, path: filepath.Join(dir, name+".pem")}
	a.write(a.path, "CERTIFICATE", der)
	return a
}

func (a *authority) write(path, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes a certificate for an address and a name, valid until then, and its key.
func (a *authority) issue(file string, ip netip.Addr, until time.Time) (certificate string, key Secret) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: file},
		DNSNames: []string{file + ".example.net"}, IPAddresses: []net.IP{ip.AsSlice()},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate = filepath.Join(a.dir, file+".pem")
	a.write(certificate, "CERTIFICATE", der)
	a.write(filepath.Join(a.dir, file+".key"), "PRIVATE KEY", pkcs8)
	key, err = NewSecret("file:" + filepath.Join(a.dir, file+".key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return certificate, key
}

// withCertificates changes a tunnel and its peer from a pre-shared key to certificates.
func (l *ikeLab) withCertificates(ours, theirs Tunnel, until, peerUntil time.Time) (Tunnel, Tunnel) {
	ca := newAuthority(l.t, l.run, "ca")
	for _, side := range []struct {
		t     *Tunnel
		file  string
		until time.Time
	}{{&ours, "gw", until}, {&theirs, "peer", peerUntil}} {
		side.t.IKE.Auth, side.t.IKE.PSK, side.t.IKE.CA = Certificate, Secret{}, ca.path
		side.t.IKE.Certificate, side.t.IKE.Key = ca.issue(side.file, side.t.Local.Addr(), side.until)
	}
	return ours, theirs
}

// I1: certificates of one authority on both sides.
func TestTunnelWithCertificates(t *testing.T) {
	l := newIKELab(t)
	ours := l.tunnel()
	ours, theirs := l.withCertificates(ours, l.mirrored(ours), time.Now().Add(time.Hour), time.Now().Add(time.Hour))
	l.startPeer(theirs)
	l.loadPeer(theirs)
	l.supervise(ours).await("up", 20*time.Second, isUp)
}

// I4: ESP inside UDP, whether there is a NAT or not.
func TestNATTraversalAlways(t *testing.T) {
	l := newIKELab(t)
	tunnel := l.tunnel()
	tunnel.NATTraversal = NATAlways
	l.startPeer(tunnel)
	theirs := l.mirrored(tunnel)
	theirs.NATTraversal = NATAuto
	l.loadPeer(theirs)
	s := l.supervise(tunnel)
	s.await("up", 20*time.Second, isUp)
	stream := l.stream()
	s.await("traffic", 20*time.Second, func(c call.Tunnel) bool { return c.In.Packets >= 20 })
	if sent, lost := stream.end(); len(lost) > 0 {
		t.Errorf("of %d packets %d are lost: %v", sent, len(lost), lost)
	}
	l.in(l.ours, func() error {
		states, err := netlink.XfrmStateList(netlink.FAMILY_V4)
		for _, s := range states {
			if s.Encap == nil || s.Encap.SrcPort+s.Encap.DstPort != 9000 {
				t.Errorf("state %#x is not inside UDP port 4500", s.Spi)
			}
		}
		if len(states) != 2 {
			t.Errorf("%d states, want 2", len(states))
		}
		return err
	})
}

// Each way to fail is an error in words that names realm, tunnel and cause.
func TestCauses(t *testing.T) {
	later := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name  string
		cause string
		words []string
		// change makes one side wrong; nothing is loaded into the peer if it returns false.
		change func(l *ikeLab, ours, theirs *Tunnel) bool
	}{
		{"wrong pre-shared key", causePSK, []string{"pre-shared key"}, func(l *ikeLab, _, theirs *Tunnel) bool {
			theirs.IKE.PSK = l.secret("other", "battery staple")
			return true
		}},
		{"wrong IKE proposal", causeProposal, []string{"proposals"}, func(_ *ikeLab, _, theirs *Tunnel) bool {
			theirs.IKE.Proposals = []string{"aes256-sha256-modp3072"}
			return true
		}},
		{"wrong ESP proposal", causeProposal, []string{"esp_proposals"}, func(_ *ikeLab, _, theirs *Tunnel) bool {
			theirs.IKE.ESPProposals = []string{"aes256-sha256-modp3072"}
			return true
		}},
		{"wrong networks", causeSelectors, []string{"networks"}, func(_ *ikeLab, ours, _ *Tunnel) bool {
			ours.Networks = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24")}
			return true
		}},
		{"wrong identity", causePSK, []string{"remote_id"}, func(_ *ikeLab, ours, _ *Tunnel) bool {
			ours.IKE.LocalID = "somebody@example.net"
			return true
		}},
		{"peer with an expired certificate", causeExpired, []string{"renew"}, func(l *ikeLab, ours, theirs *Tunnel) bool {
			*ours, *theirs = l.withCertificates(*ours, *theirs, later, time.Now().Add(-time.Hour))
			return true
		}},
		{"our certificate expired", causeExpired, []string{"renew", "CN=gw"}, func(l *ikeLab, ours, theirs *Tunnel) bool {
			*ours, *theirs = l.withCertificates(*ours, *theirs, time.Now().Add(-time.Hour), later)
			return true
		}},
		{"peer of another authority", causeUntrusted, []string{"ca", "other.pem"}, func(l *ikeLab, ours, theirs *Tunnel) bool {
			*ours, *theirs = l.withCertificates(*ours, *theirs, later, later)
			ours.IKE.CA = newAuthority(l.t, l.run, "other").path
			return true
		}},
		{"we of another authority", causeAuth, []string{"gw.pem"}, func(l *ikeLab, ours, theirs *Tunnel) bool {
			*ours, *theirs = l.withCertificates(*ours, *theirs, later, later)
			theirs.IKE.CA = newAuthority(l.t, l.run, "other").path
			return true
		}},
		{"peer with another identity", causeAuth, []string{"remote_id", "nobody.example.net"}, func(l *ikeLab, ours, theirs *Tunnel) bool {
			*ours, *theirs = l.withCertificates(*ours, *theirs, later, later)
			ours.IKE.RemoteID, theirs.IKE.LocalID = "nobody.example.net", "peer.example.net"
			return true
		}},
		{"identity that our certificate has not", causeIdentity, []string{"gw.example.net"}, func(l *ikeLab, ours, theirs *Tunnel) bool {
			*ours, *theirs = l.withCertificates(*ours, *theirs, later, later)
			ours.IKE.LocalID = "gw2.example.net"
			return true
		}},
		{"peer that is not there", causeUnreachable, []string{"192.0.2.2", "UDP port 500"}, func(_ *ikeLab, _, _ *Tunnel) bool { return false }},
		{"NAT where none may be", causeNAT, []string{"nat_traversal: auto"}, func(_ *ikeLab, ours, theirs *Tunnel) bool {
			// The peer says what one behind a NAT would.
			ours.NATTraversal, theirs.NATTraversal = NATNever, NATAlways
			return true
		}},
		{"no secret", causeKey, []string{"file:/nowhere"}, func(l *ikeLab, ours, _ *Tunnel) bool {
			var err error
			if ours.IKE.PSK, err = NewSecret("file:/nowhere"); err != nil {
				l.t.Fatal(err)
			}
			return false
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newIKELab(t)
			ours := l.tunnel()
			theirs := l.mirrored(ours)
			if c.change(l, &ours, &theirs) {
				l.startPeer(theirs)
				l.loadPeer(theirs)
			}
			s := l.supervise(ours)
			got := s.await("cause "+c.cause, 20*time.Second, func(st call.Tunnel) bool { return st.Cause == c.cause })
			contains(t, got.Reason, append(c.words, "realm carrier-a", "tunnel primary")...)
			contains(t, s.log.String(), "cause="+c.cause, "tunnel=primary", "realm=carrier-a")
			if got.State == call.TunnelUp || got.Failures[c.cause] == 0 {
				t.Errorf("status %+v", got)
			}
			t.Logf("%s: %s", got.Cause, got.Reason)
		})
	}
}

// The two things that charon itself needs.
func TestCausesOfCharon(t *testing.T) {
	t.Run("not installed", func(t *testing.T) {
		l := newIKELab(t)
		s := l.superviseBy("/nowhere/charon", l.tunnel())
		got := s.await("cause", 10*time.Second, func(st call.Tunnel) bool { return st.Cause == causeCharon })
		contains(t, got.Reason, "apt-get install charon-systemd", "realm carrier-a", "tunnel primary")
	})
	t.Run("no namespace", func(t *testing.T) {
		l := newIKELab(t)
		l.ours = "/run/netns/tdmnone"
		s := l.supervise(l.tunnel())
		got := s.await("cause", 10*time.Second, func(st call.Tunnel) bool { return st.Cause == causeNamespace })
		contains(t, got.Reason, "tandem realms carrier-a", "tunnel primary")
	})
}
