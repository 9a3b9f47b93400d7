package ipsec

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/strongswan/govici/vici"
)

// build makes a message of sections (map[string]any), values and lists.
func build(t testing.TB, parts map[string]any) *vici.Message {
	t.Helper()
	m := vici.NewMessage()
	for key, value := range parts {
		if inner, ok := value.(map[string]any); ok {
			value = build(t, inner)
		}
		if err := m.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// listed is a list-sa event of strongSwan 6.0.1 as it was received, without what is not read.
func listed() map[string]any {
	return map[string]any{"primary": map[string]any{
		"uniqueid": "1", "version": "2", "state": "ESTABLISHED", "local-host": "192.0.2.1", "remote-host": "192.0.2.2",
		"initiator": "yes", "initiator-spi": "94dd1e5e3a1e3c86", "responder-spi": "b7f6f3d8b0b1ad90",
		"encr-alg": "AES_GCM_16", "encr-keysize": "256", "prf-alg": "PRF_HMAC_SHA2_384", "dh-group": "ECP_384",
		"established": "21", "rekey-time": "65811",
		"child-sas": map[string]any{"primary-1": map[string]any{
			"name": "primary", "uniqueid": "1", "reqid": "1", "state": "INSTALLED", "mode": "TUNNEL", "protocol": "ESP",
			"spi-in": "c93a1513", "spi-out": "cc5f9a60", "if-id-in": "00000001", "if-id-out": "00000001",
			"encr-alg": "AES_GCM_16", "encr-keysize": "256", "dh-group": "ECP_384", "esn": "1",
			"bytes-in": "10920", "packets-in": "130", "install-time": "20",
		}},
	}}
}

func TestParseIKEs(t *testing.T) {
	want := []ikeSA{{
		Name: "primary", ID: "1", State: ikeEstablished, Initiator: "94dd1e5e3a1e3c86", Responder: "b7f6f3d8b0b1ad90", Ours: true,
		Age: 21 * time.Second, Proposal: "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384",
		Children: []childSA{{
			Name: "primary", ID: "1", State: childInstalled, In: 0xc93a1513, Out: 0xcc5f9a60, IfID: 1, Age: 20 * time.Second,
			Proposal: "AES_GCM_16-256/ECP_384/ESN",
		}},
	}}
	if d := cmp.Diff(want, parseIKEs(build(t, listed()))); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// Nonsense of any kind is something that is not there.
func TestParseIKEsOfNonsense(t *testing.T) {
	for name, parts := range map[string]map[string]any{
		"empty":            {},
		"values":           {"primary": "up"},
		"lists":            {"primary": []string{"a", "b"}},
		"empty section":    {"primary": map[string]any{}},
		"children a value": {"primary": map[string]any{"child-sas": "none"}},
		"numbers": {"primary": map[string]any{
			"established": "-1", "child-sas": map[string]any{"c": map[string]any{"spi-in": "xyz", "spi-out": "1ffffffff", "install-time": "soon"}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range parseIKEs(build(t, parts)) {
				if s.Age != 0 || s.answered() || len(carrying("primary", "", []ikeSA{s})) > 0 {
					t.Errorf("%+v", s)
				}
				for _, c := range s.Children {
					if c.In != 0 || c.Out != 0 || c.Age != 0 {
						t.Errorf("%+v", c)
					}
				}
			}
		})
	}
}

// A name that charon repeats from a peer cannot forge a line of our log.
func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"plain":                    "plain",
		"two\nlines\r\x1b[31m":     "two lines  [31m",
		"\xff":                     "?",
		strings.Repeat("x", 10000): strings.Repeat("x", maxLine),
	} {
		if got := clip(in); got != want {
			t.Errorf("clip(%.20q) = %.20q, want %.20q", in, got, want)
		}
	}
}

// VICI packets and elements (src/libcharon/plugins/vici/README.md of strongSwan).
const (
	viciRequest, viciResponse, viciRegister, viciConfirm, viciEvent = 0, 1, 3, 5, 7
	viciStart, viciEnd, viciValue, viciList, viciItem, viciListEnd  = 1, 2, 3, 4, 5, 6
)

func packet(kind byte, name string, body []byte) []byte {
	p := []byte{kind}
	if kind == viciEvent {
		p = append(append(p, byte(len(name))), name...)
	}
	p = append(p, body...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...)
}

func keyValue(key, value string) []byte {
	b := append([]byte{viciValue, byte(len(key))}, key...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(value))), value...)
}

// serve answers requests on a socket: registrations are confirmed, requests are for answer.
func serve(t *testing.T, answer func(conn net.Conn, command string)) (path string) {
	t.Helper()
	return serveRegistered(t, nil, answer)
}

// serveRegistered is serve with something that is sent before each confirmation.
func serveRegistered(t *testing.T, before []byte, answer func(conn net.Conn, command string)) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), socketFile)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			var size [4]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return
			}
			p := make([]byte, binary.BigEndian.Uint32(size[:]))
			if _, err := io.ReadFull(conn, p); err != nil {
				return
			}
			switch p[0] {
			case viciRegister:
				_, _ = conn.Write(append(slices.Clip(before), packet(viciConfirm, "", nil)...))
			case viciRequest:
				answer(conn, string(p[2:2+p[1]]))
			}
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	return path
}

func connected(t *testing.T, path string) *client {
	t.Helper()
	c, err := dial(t.Context(), path, listings[:1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

// A listing is whole, however its events and the reply are read: a missing SA would be a tunnel
// taken for down.
func TestListingIsWhole(t *testing.T) {
	const many = 500
	path := serve(t, func(conn net.Conn, _ string) {
		var all []byte
		for range many {
			body := append([]byte{viciStart, 1}, 'c')
			body = append(append(body, keyValue("state", "ESTABLISHED")...), viciEnd)
			all = append(all, packet(viciEvent, "list-sa", body)...)
		}
		_, _ = conn.Write(append(all, packet(viciResponse, "", nil)...))
	})
	c := connected(t, path)
	for range 20 {
		sas, err := c.sas(t.Context())
		if err != nil || len(sas) != many {
			t.Fatalf("%d SAs, %v, want %d", len(sas), err, many)
		}
	}
}

// A charon that does not answer costs a deadline, not the daemon.
func TestSilentCharon(t *testing.T) {
	c := connected(t, serve(t, func(net.Conn, string) {}))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.sas(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
}

// Events that come before all are registered do not keep the registration waiting for ever.
func TestEventsBeforeTheLastRegistration(t *testing.T) {
	path := serveRegistered(t, packet(viciEvent, notices[0], keyValue("up", "yes")), func(conn net.Conn, _ string) {
		_, _ = conn.Write(append(packet(viciEvent, notices[1], keyValue("up", "yes")), packet(viciResponse, "", nil)...))
	})
	done := make(chan error, 1)
	go func() {
		c, err := dial(t.Context(), path, notices)
		if err == nil {
			_, err = c.call(t.Context(), "version", nil)
			if events := c.drain(); len(events) != 1 || events[0].Name != notices[1] {
				t.Errorf("events %v, want the one after the registrations", events)
			}
			err = errors.Join(err, c.close())
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * dialTimeout):
		t.Fatal("the registration does not end")
	}
}

// A charon that confirms nothing costs a deadline too.
func TestDialIsBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	path := filepath.Join(t.TempDir(), socketFile)
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := dial(ctx, path, notices); !silent(err) {
		t.Errorf("error %v, want that of a deadline", err)
	}
}

// A listing that may have been cut is none.
func TestTruncatedListing(t *testing.T) {
	c := connected(t, serve(t, func(conn net.Conn, _ string) {
		_, _ = conn.Write(append(bytes.Repeat(packet(viciEvent, "list-sa", nil), maxItems+1), packet(viciResponse, "", nil)...))
	}))
	if sas, err := c.sas(t.Context()); !errors.Is(err, errTruncated) {
		t.Errorf("%d SAs, %v", len(sas), err)
	}
}

// Four bytes cannot make us reserve 4 GiB.
func TestOversizedPacket(t *testing.T) {
	c := connected(t, serve(t, func(conn net.Conn, _ string) {
		_, _ = conn.Write([]byte{0xff, 0xff, 0xff, 0xff, 1})
	}))
	if _, err := c.sas(t.Context()); err == nil {
		t.Error("a packet of 4 GiB is no error")
	}
	b := &boundedConn{Conn: pipeWith(t, binary.BigEndian.AppendUint32(nil, maxPacket+1))}
	if _, err := b.Read(make([]byte, 4)); !errors.Is(err, errOversized) {
		t.Errorf("error %v", err)
	}
}

func pipeWith(t testing.TB, data []byte) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = theirs.Write(data)
		_ = theirs.Close()
	}()
	t.Cleanup(func() { _ = ours.Close(); <-done })
	return ours
}

// What is read through a boundedConn is what was sent, however it is cut.
func FuzzBoundedConn(f *testing.F) {
	f.Add(packet(viciResponse, "", keyValue("success", "yes")), 1)
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 9}, 3)
	f.Add([]byte{0, 8, 0, 1}, 4)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		b := &boundedConn{Conn: pipeWith(t, data)}
		p := make([]byte, 1+(step&0x3ff))
		var got []byte
		for {
			n, err := b.Read(p)
			got = append(got, p[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.HasPrefix(data, got) {
			t.Errorf("read %x of %x", got, data)
		}
	})
}

// tree makes a message of arbitrary bytes: charon's keys and states among them, so that the
// fuzzer finds the ways through the parsers.
func tree(data []byte, depth int) (*vici.Message, []byte) {
	words := []string{
		"primary", "name", "uniqueid", "state", "initiator", "initiator-spi", "responder-spi", "established", "child-sas", "spi-in", "spi-out",
		"if-id-in", "install-time", "encr-alg", "encr-keysize", "prf-alg", "dh-group", "esn", "nat-local", "msg", "ikesa-uniqueid", "ikesa-name",
		"INSTALLED", "REKEYING", "ESTABLISHED", "CONNECTING", "yes", "1", "conns", "keys", "giving up after 3 retransmits", "received DELETE for IKE_SA primary[1]",
	}
	m := vici.NewMessage()
	for len(data) >= 3 && depth < 5 {
		kind, key, rest := data[0], words[int(data[1])%len(words)], data[3:]
		switch kind % 5 {
		case 0:
			return m, rest
		case 1:
			var inner *vici.Message
			inner, rest = tree(rest, depth+1)
			_ = m.Set(key, inner)
		case 2:
			_ = m.Set(key, words[int(data[2])%len(words)])
		case 3:
			n := min(int(data[2]), len(rest))
			_ = m.Set(key, string(rest[:n]))
			rest = rest[n:]
		case 4:
			_ = m.Set(key, []string{string(rest[:min(2, len(rest))])})
		}
		data = rest
	}
	return m, nil
}

// Whatever charon sends, a keeper takes it, and keeps within bounds.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{1, 0, 0, 2, 3, 24, 2, 2, 27, 1, 8, 0, 1, 0, 0, 2, 1, 0, 2, 3, 22, 3, 9, 2, 'c', '9', 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{2, 19, 30, 2, 20, 27, 2, 21, 0})
	f.Add([]byte{2, 19, 31, 2, 20, 27, 2, 21, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _ := tree(data, 0)
		sas := parseIKEs(m)
		for _, s := range sas {
			if len(s.Name) > maxLine || !utf8.ValidString(s.Name) || s.Age < 0 {
				t.Errorf("%+v", s)
			}
		}
		if found := carrying("primary", "", sas); len(found) > 0 {
			stays, superfluous := settle(found)
			if stays.child.Name != "primary" || len(superfluous) >= len(found) {
				t.Errorf("of %+v stays %+v, and %+v go", found, stays, superfluous)
			}
		}
		k := testKeeper(t)
		k.tunnels[0].current.ike.ID = "1"
		k.tunnels[0].found = true
		for _, name := range notices {
			k.notice(vici.Event{Name: name, Message: m}, time.Unix(1e9, 0))
		}
		if tunnel := k.tunnels[0]; tunnel.dpdFailures > 1 || len(tunnel.failures) > len(notices) || len(tunnel.why.reason) > 4*maxLine {
			t.Errorf("%+v", tunnel)
		}
	})
}
