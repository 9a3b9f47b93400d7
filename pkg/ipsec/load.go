package ipsec

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/strongswan/govici/vici"
)

const (
	// maxCertificates bounds a file of certificates, in bytes and in their number.
	maxCertificateFile = 64 << 10
	maxCertificates    = 8
	// maxLoaded bounds the record of what was loaded.
	maxLoaded = 256 << 10
)

// credentials are what one tunnel proves itself and its peer by.
type credentials struct {
	psk []byte
	// chain is our own certificate and those between it and the peer's trust, in DER.
	chain [][]byte
	key   []byte
	ca    [][]byte
	// until is when the first certificate of ours expires.
	until time.Time
}

// readCredentials reads what t names, and finds what would fail anyhow before the peer sees
// it: then the words are ours. The error is a failure.
func readCredentials(t Tunnel, now time.Time) (credentials, error) {
	var c credentials
	bad := func(cause, format string, args ...any) (credentials, error) {
		return credentials{}, because(t, cause, fmt.Sprintf(format, args...))
	}
	if t.IKE.Auth == PSK {
		psk, err := t.IKE.PSK.Read()
		if err != nil {
			return bad(causeKey, "%v", err)
		}
		c.psk = psk
		return c, nil
	}
	own, err := readCertificates(t.IKE.Certificate)
	if err != nil {
		return bad(causeKey, "%v", err)
	}
	authorities, err := readCertificates(t.IKE.CA)
	if err != nil {
		return bad(causeKey, "%v", err)
	}
	if c.key, err = t.IKE.Key.Read(); err != nil {
		return bad(causeKey, "%v", err)
	}
	for _, cert := range slices.Concat(own, authorities) {
		if now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
			return bad(causeExpired, "our %s is valid from %s to %s",
				cert.Subject, cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
		}
		if c.until.IsZero() || cert.NotAfter.Before(c.until) {
			c.until = cert.NotAfter
		}
	}
	if err := matches(c.key, own[0]); err != nil {
		return bad(causeKey, "%s: %v", t.IKE.Key, err)
	}
	if id := t.localID(); !certifies(own[0], id) {
		return bad(causeIdentity, "our certificate %s does not have the identity %q; set local_id to one that it has: %s",
			t.IKE.Certificate, id, strings.Join(identities(own[0]), ", "))
	}
	for _, cert := range own {
		c.chain = append(c.chain, cert.Raw)
	}
	for _, cert := range authorities {
		c.ca = append(c.ca, cert.Raw)
	}
	return c, nil
}

// readCertificates reads a file of PEM certificates, 1 to 8.
func readCertificates(path string) ([]*x509.Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCertificateFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxCertificateFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxCertificateFile)
	}
	certs, err := parseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs, nil
}

func parseCertificates(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if len(certs) == maxCertificates {
			return nil, fmt.Errorf("has more than %d certificates", maxCertificates)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("has no PEM certificate")
	}
	return certs, nil
}

// matches checks that a private key is a certificate's. Its errors have nothing of the key in them.
func matches(key []byte, cert *x509.Certificate) error {
	block, _ := pem.Decode(key)
	if block == nil {
		return errors.New("has no PEM private key")
	}
	defer clear(block.Bytes)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if rsa, rsaErr := x509.ParsePKCS1PrivateKey(block.Bytes); rsaErr == nil {
			private = rsa
		} else if ec, ecErr := x509.ParseECPrivateKey(block.Bytes); ecErr == nil {
			private = ec
		} else {
			return errors.New("is no private key without a password")
		}
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%T cannot sign", private)
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return fmt.Errorf("is not the key of certificate %s", cert.Subject)
	}
	return nil
}

// certifies is whether charon will find id in a certificate (RFC 4945 section 3.1). Subjects
// are charon's to compare.
func certifies(cert *x509.Certificate, id string) bool {
	if strings.Contains(id, "=") {
		return true
	}
	return slices.Contains(identities(cert), strings.TrimPrefix(id, "@"))
}

func identities(cert *x509.Certificate) []string {
	ids := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, ip := range cert.IPAddresses {
		ids = append(ids, ip.String())
	}
	return ids
}

// connection is t as load-conn takes it.
func connection(t Tunnel, inner netip.Addr, c credentials) (*vici.Message, error) {
	ike, child := t.IKE.Lifetime, t.IKE.ChildLifetime
	var errs []error
	part := func(pairs ...any) *vici.Message {
		m, err := message(pairs...)
		errs = append(errs, err)
		return m
	}
	networks := make([]string, len(t.Networks))
	for i, n := range t.Networks {
		networks[i] = n.String()
	}
	auth := "psk"
	if t.IKE.Auth == Certificate {
		auth = "pubkey"
	}
	local := part("auth", auth, "id", t.localID())
	remote := part("auth", auth, "id", t.remoteID())
	if len(c.chain) > 0 {
		errs = append(errs, local.Set("certs", []string{string(c.chain[0])}))
		errs = append(errs, remote.Set("cacerts", texts(c.ca)))
	}
	ifID := strconv.FormatUint(uint64(t.IfID), 10)
	children := part(t.Name, part(
		"mode", "tunnel",
		"local_ts", []string{netip.PrefixFrom(inner, inner.BitLen()).String()},
		"remote_ts", networks,
		"esp_proposals", t.IKE.ESPProposals,
		// Keys change in the tenth of the life before the last one: the life itself is a bound.
		"rekey_time", whole(child-child/10), "rand_time", whole(child/10), "life_time", whole(child),
		// Whoever else starts something makes duplicates: each attempt is ours.
		"start_action", "none", "dpd_action", "clear", "close_action", "none",
		// The same for all SAs of the tunnel, those of a charon before this one too.
		"reqid", ifID,
		"replay_window", strconv.Itoa(t.IKE.ReplayWindow),
		"copy_dscp", "out",
		"hw_offload", "no",
	))
	conn := part(
		"version", "2",
		"local_addrs", []string{t.Local.Addr().String()},
		"remote_addrs", []string{t.Remote.String()},
		"proposals", t.IKE.Proposals,
		"if_id_in", ifID, "if_id_out", ifID,
		"mobike", "no",
		// Perfect forward secrecy for the first CHILD_SA too (RFC 6023).
		"childless", "prefer",
		// A new IKE_SA must not take the old one's CHILD_SAs with it before it has its own:
		// duplicates are settled by us, when both carry.
		"unique", "never",
		"keyingtries", "1",
		"encap", map[bool]string{true: "yes", false: "no"}[t.NATTraversal == NATAlways],
		"dpd_delay", whole(t.IKE.DPDDelay),
		"reauth_time", "0",
		"rekey_time", whole(ike-ike/5), "rand_time", whole(ike/10), "over_time", whole(ike/5),
		"send_cert", "always",
		"local", local, "remote", remote,
		"children", children,
	)
	return part(t.Name, conn), errors.Join(errs...)
}

func texts(blobs [][]byte) []string {
	l := make([]string, len(blobs))
	for i, b := range blobs {
		l[i] = string(b)
	}
	return l
}

// whole is a duration in seconds, at least one: 0 means never to charon.
func whole(d time.Duration) string {
	return strconv.FormatInt(max(int64(d/time.Second), 1), 10) + "s"
}

// record is what we have loaded into one charon process. Where nothing changed nothing is
// loaded, also by the next daemon.
type record struct {
	Process     string            `json:"process"`
	Connections map[string]prints `json:"connections"`
}

// prints are fingerprints of a connection: of all of it, and of what has to be negotiated
// anew if it changes. Certificates count with the next key exchange.
type prints struct {
	All    string `json:"all"`
	Agreed string `json:"agreed"`
}

func fingerprint(m *vici.Message) string {
	sum := sha256.Sum256([]byte(m.String()))
	return hex.EncodeToString(sum[:16])
}

func readRecord(path string, of process) record {
	empty := record{Process: of.String(), Connections: make(map[string]prints)}
	b, err := os.ReadFile(path)
	if err != nil || len(b) > maxLoaded {
		return empty
	}
	var r record
	if json.Unmarshal(b, &r) != nil || r.Process != empty.Process || r.Connections == nil {
		return empty
	}
	return r
}

func (r record) write(path string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeFile(path, b)
}

// loader brings what one charon knows in line with what the tunnels want.
type loader struct {
	client *client
	inner  netip.Addr
	record record
	now    time.Time
	// replaced are connections whose SAs no longer fit, old those that charon is too old for,
	// failed those whose credentials cannot be used.
	replaced, old []string
	failed        map[string]error
	until         map[string]time.Time
}

// load loads what differs, and unloads what is not wanted.
func (l *loader) load(ctx context.Context, tunnels []Tunnel) error {
	l.failed, l.until = make(map[string]error), make(map[string]time.Time)
	have, err := l.client.names(ctx, "get-conns", "conns")
	if err != nil {
		return err
	}
	var errs []error
	wanted, keys := make(map[string]bool), make(map[string]bool)
	complete := true
	for _, t := range tunnels {
		wanted[t.Name] = true
		c, err := readCredentials(t, l.now)
		if err != nil {
			// What is loaded stays: it may still carry.
			l.failed[t.Name] = err
			complete = false
			continue
		}
		l.until[t.Name] = c.until
		err = l.tunnel(ctx, t, c, slices.Contains(have, t.Name), keys)
		clear(c.psk)
		clear(c.key)
		if r := (refusal{}); errors.As(err, &r) {
			l.failed[t.Name] = because(t, causeKey, err.Error())
			complete = false
			continue
		}
		errs = append(errs, err)
	}
	for _, name := range have {
		if !wanted[name] {
			errs = append(errs, l.unload(ctx, "unload-conn", "name", name))
			delete(l.record.Connections, name)
			l.replaced = append(l.replaced, name)
		}
	}
	errs = append(errs, l.forget(ctx, "get-shared", "unload-shared", wanted))
	if complete {
		errs = append(errs, l.forget(ctx, "get-keys", "unload-key", keys))
	}
	return errors.Join(errs...)
}

// tunnel loads the credentials of t, which changes no SA, and its connection if that differs.
func (l *loader) tunnel(ctx context.Context, t Tunnel, c credentials, there bool, keys map[string]bool) error {
	if c.psk != nil {
		shared, err := message("id", t.Name, "type", "IKE", "data", string(c.psk), "owners", []string{t.localID(), t.remoteID()})
		if err != nil {
			return fmt.Errorf("pre-shared key of tunnel %s cannot be loaded", t.Name)
		}
		if _, err := l.client.call(ctx, "load-shared", shared); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.Name, err)
		}
	}
	if c.key != nil {
		key, err := message("type", "any", "data", string(c.key))
		if err != nil {
			return fmt.Errorf("private key of tunnel %s cannot be loaded", t.Name)
		}
		reply, err := l.client.call(ctx, "load-key", key)
		if err != nil {
			return fmt.Errorf("tunnel %s: %w", t.Name, err)
		}
		keys[text(reply, "id")] = true
	}
	for _, between := range c.chain[min(1, len(c.chain)):] {
		cert, err := message("type", "X509", "flag", "CA", "data", string(between))
		if err != nil {
			return err
		}
		if _, err := l.client.call(ctx, "load-cert", cert); err != nil {
			return fmt.Errorf("tunnel %s: %w", t.Name, err)
		}
	}
	conn, err := connection(t, l.inner, c)
	if err != nil {
		return fmt.Errorf("tunnel %s: %w", t.Name, err)
	}
	agreed, err := connection(t, l.inner, credentials{})
	if err != nil {
		return fmt.Errorf("tunnel %s: %w", t.Name, err)
	}
	now, before := prints{fingerprint(conn), fingerprint(agreed)}, l.record.Connections[t.Name]
	if there && now.All == before.All {
		return nil
	}
	err = l.conn(ctx, conn, t.Name)
	if err != nil {
		return fmt.Errorf("tunnel %s: %w", t.Name, err)
	}
	l.record.Connections[t.Name] = now
	if there && before.Agreed != "" && before.Agreed != now.Agreed {
		l.replaced = append(l.replaced, t.Name)
	}
	return nil
}

// conn loads a connection. strongSwan 5.9.8 (Debian 12) cannot prefer to make the first CHILD_SA
// by itself: there its keys come from those of IKE, until they change for the first time.
func (l *loader) conn(ctx context.Context, conn *vici.Message, name string) error {
	_, err := l.client.call(ctx, "load-conn", conn)
	if r := (refusal{}); !errors.As(err, &r) || !strings.Contains(err.Error(), "childless") {
		return err
	}
	if err := section(conn, name).Set("childless", "allow"); err != nil {
		return err
	}
	l.old = append(l.old, name)
	_, err = l.client.call(ctx, "load-conn", conn)
	return err
}

// forget unloads the secrets or keys that are not wanted.
func (l *loader) forget(ctx context.Context, get, unload string, wanted map[string]bool) error {
	have, err := l.client.names(ctx, get, "keys")
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range have {
		if !wanted[id] {
			errs = append(errs, l.unload(ctx, unload, "id", id))
		}
	}
	return errors.Join(errs...)
}

func (l *loader) unload(ctx context.Context, command, key, value string) error {
	in, err := message(key, value)
	if err != nil {
		return err
	}
	_, err = l.client.call(ctx, command, in)
	return err
}
