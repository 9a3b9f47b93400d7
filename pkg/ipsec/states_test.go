package ipsec

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attribute is one netlink attribute, padded.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

func number(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// aeadValue is struct xfrm_algo_aead.
func aeadValue(name string, bits, icv uint32, key []byte) []byte {
	b := make([]byte, 64, 128)
	copy(b, name)
	return append(append(append(b, number(bits)...), number(icv)...), key...)
}

// saInfo is struct xfrm_usersa_info of an IPv4 association.
func saInfo() []byte {
	info := nl.XfrmUsersaInfo{Reqid: 7, Family: unix.AF_INET, Mode: 1, Flags: nl.XFRM_STATE_ESN}
	copy(info.Id.Daddr[:], []byte{192, 0, 2, 1})
	copy(info.Saddr[:], []byte{192, 0, 2, 2})
	info.Id.Spi, info.Id.Proto = nl.Swap32(0x1001), unix.IPPROTO_ESP
	info.Curlft = nl.XfrmLifetimeCur{Bytes: 1000, Packets: 10, AddTime: 99}
	info.Stats = nl.XfrmStats{ReplayWindow: 1, Replay: 2, IntegrityFailed: 3}
	return bytes.Clone(info.Serialize())
}

var (
	saAttributes = bytes.Join([][]byte{
		attribute(nl.XFRMA_ALG_AEAD, aeadValue(manualAlgorithm, 288, 128, bytes.Repeat([]byte{0x11}, 36))),
		attribute(nl.XFRMA_IF_ID, number(5)),
		attribute(nl.XFRMA_REPLAY_ESN_VAL, append(make([]byte, 20), append(number(256), make([]byte, 32)...)...)),
		attribute(nl.XFRMA_SA_DIR, []byte{dirIn}),
	}, nil)
	saMessage = append(saInfo(), saAttributes...)
	saWanted  = state{
		id: stateID{netip.MustParseAddr("192.0.2.1"), 0x1001, unix.IPPROTO_ESP}, src: netip.MustParseAddr("192.0.2.2"),
		ifID: 5, reqID: 7, mode: 1, dir: dirIn,
		added: 99, bytes: 1000, packets: 10, replayed: 2, late: 1, broken: 3, esn: true, window: 256,
	}
	deletedHeader  = make([]byte, nl.SizeofXfrmUsersaId)
	deletedMessage = bytes.Join([][]byte{deletedHeader, attribute(nl.XFRMA_SA, saInfo()), saAttributes}, nil)
)

func TestParseState(t *testing.T) {
	var got aead
	s, err := parseState(saMessage, func(s state, a aead) { got = a })
	if err != nil || s != saWanted {
		t.Errorf("got %+v, error %v", s, err)
	}
	if got.name != manualAlgorithm || got.icv != 128 || !bytes.Equal(got.key, bytes.Repeat([]byte{0x11}, 36)) {
		t.Errorf("algorithm %s/%d with %d bytes of key", got.name, got.icv, len(got.key))
	}
	if s, err := parseDeleted(deletedMessage); err != nil || s != saWanted {
		t.Errorf("deleted: got %+v, error %v", s, err)
	}
	keyed := func(state, aead) { t.Error("a message that is cut short gave a key") }
	for name, b := range map[string][]byte{
		"empty":                             nil,
		"short info":                        saInfo()[:nl.SizeofXfrmUsersaInfo-1],
		"attribute longer than all":         append(saInfo(), 0xff, 0xff, 31, 0),
		"attribute shorter than its header": append(saInfo(), 3, 0, 31, 0, 0, 0, 0, 0),
		"short if_id":                       append(saInfo(), attribute(nl.XFRMA_IF_ID, []byte{1, 0})...),
		"no direction":                      append(saInfo(), attribute(nl.XFRMA_SA_DIR, nil)...),
		"short window":                      append(saInfo(), attribute(nl.XFRMA_REPLAY_ESN_VAL, make([]byte, 20))...),
		"short algorithm":                   append(saInfo(), attribute(nl.XFRMA_ALG_AEAD, make([]byte, 71))...),
		"key longer than its attribute":     append(saInfo(), attribute(nl.XFRMA_ALG_AEAD, aeadValue("x", 296, 128, make([]byte, 36)))...),
		"key of 512 MiB":                    append(saInfo(), attribute(nl.XFRMA_ALG_AEAD, aeadValue("x", 1<<32-1, 128, make([]byte, 36)))...),
	} {
		if _, err := parseState(b, keyed); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, b := range map[string][]byte{
		"empty": nil, "no association": deletedHeader,
		"short association": append(deletedHeader[:24:24], attribute(nl.XFRMA_SA, make([]byte, 100))...),
	} {
		if _, err := parseDeleted(b); err == nil {
			t.Errorf("deleted, %s: no error", name)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add(saMessage)
	f.Add(deletedMessage)
	f.Add(append(saInfo(), 0xff, 0xff, 31, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := parseState(b, func(_ state, a aead) {
			if len(a.key) > maxKey || len(a.name) > 64 {
				t.Errorf("key of %d bytes, name of %d", len(a.key), len(a.name))
			}
		})
		if err == nil && len(b) < nl.SizeofXfrmUsersaInfo {
			t.Errorf("%d bytes are an association", len(b))
		}
		if _, err := parseDeleted(b); err == nil && len(b) < nl.SizeofXfrmUsersaInfo {
			t.Errorf("%d bytes are a deleted association", len(b))
		}
	})
}

// event is a netlink message.
func event(kind uint16, data []byte) []byte {
	b := append(number(uint32(unix.NLMSG_HDRLEN+len(data))), binary.NativeEndian.AppendUint16(nil, kind)...)
	return append(append(b, make([]byte, unix.NLMSG_HDRLEN-6)...), data...)
}

func TestEachDeleted(t *testing.T) {
	var got []state
	take := func(s state) { got = append(got, s) }
	if err := eachDeleted(append(event(nl.XFRM_MSG_NEWSA, saMessage), event(nl.XFRM_MSG_DELSA, deletedMessage)...), take); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != saWanted {
		t.Errorf("got %+v, want the deleted one", got)
	}
	if err := eachDeleted(event(nl.XFRM_MSG_DELSA, deletedHeader), take); err == nil {
		t.Error("an event without an association is none")
	}
	if err := eachDeleted([]byte{1, 2, 3}, take); err != nil || len(got) != 1 {
		t.Errorf("three bytes: %d associations, error %v", len(got), err)
	}
}

func FuzzEachDeleted(f *testing.F) {
	f.Add(event(nl.XFRM_MSG_DELSA, deletedMessage))
	f.Add(append(event(nl.XFRM_MSG_NEWSA, saMessage), event(nl.XFRM_MSG_DELSA, deletedHeader)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = eachDeleted(b, func(state) { n++ })
		if n > len(b)/nl.SizeofXfrmUsersaInfo {
			t.Errorf("%d associations in %d bytes", n, len(b))
		}
	})
}
