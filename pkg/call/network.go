package call

import (
	"net/netip"
	"time"
)

// States of a tunnel.
const (
	// TunnelDown carries nothing: there is no security association, or it is known to be dead.
	TunnelDown = "down"
	// TunnelConnecting is being negotiated.
	TunnelConnecting = "connecting"
	// TunnelUnverified has its security associations, and its monitor has no answer.
	TunnelUnverified = "unverified"
	// TunnelUp carries traffic.
	TunnelUp = "up"
)

// Tunnel is one tunnel of a realm as it is now (I7).
type Tunnel struct {
	Name  string `json:"name"`
	Realm string `json:"realm"`
	// Keying is "ike" or "manual".
	Keying string `json:"keying"`
	// Rank is the place among the realm's tunnels: 1 is the primary, the others are backups.
	Rank int `json:"rank"`
	// Active means that the realm's traffic leaves by this tunnel.
	Active bool `json:"active"`
	// State is one of the states above, since Since.
	State string    `json:"state"`
	Since time.Time `json:"since,omitzero"`
	// Cause is a word for why the tunnel is not up, from a small set; Reason says it in a sentence.
	// Both are empty while it is up.
	Cause  string `json:"cause,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Device is the xfrm interface; Local and Remote are the outer addresses.
	Device string     `json:"device"`
	Local  netip.Addr `json:"local"`
	Remote netip.Addr `json:"remote"`
	// Established is when the IKE security association was; zero without one.
	Established time.Time `json:"established,omitzero"`
	// IKE and ESP are the proposals in use, e.g. "AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384".
	IKE string `json:"ike,omitempty"`
	ESP string `json:"esp,omitempty"`
	// IKERekeys and ChildRekeys count since the daemon's start, KeyChanges those of manual keys.
	IKERekeys   uint64 `json:"ike_rekeys"`
	ChildRekeys uint64 `json:"child_rekeys"`
	KeyChanges  uint64 `json:"key_changes"`
	// In and Out count what was decrypted and encrypted since the daemon's start, over all
	// security associations.
	In  TunnelTraffic `json:"in"`
	Out TunnelTraffic `json:"out"`
	// Errors counts packets that were dropped, by kind: "replay", "integrity", "no_state", and others.
	Errors map[string]uint64 `json:"errors,omitempty"`
	// DPDFailures counts how often the peer was given up (I3), Failures attempts that came to nothing, by Cause.
	DPDFailures uint64            `json:"dpd_failures"`
	Failures    map[string]uint64 `json:"failures,omitempty"`
	// Monitor is what the echo requests through the tunnel say; left out if there are none.
	Monitor *TunnelMonitor `json:"monitor,omitempty"`
}

// TunnelTraffic counts packets and their bytes, ESP's own not among them.
type TunnelTraffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// TunnelMonitor is what becomes of the echo requests through a tunnel.
type TunnelMonitor struct {
	Target netip.Addr `json:"target"`
	// Answers is false until the target has answered once: until then its silence proves nothing.
	Answers bool `json:"answers"`
	// Missed is how many requests in a row had no answer.
	Missed int     `json:"missed"`
	RTTMS  float64 `json:"rtt_ms"`
}

// States of a realm.
const (
	// RealmUp has all its objects as the config wants them.
	RealmUp = "up"
	// RealmDegraded works, and something of it is not as the config wants it.
	RealmDegraded = "degraded"
	// RealmDown cannot carry anything.
	RealmDown = "down"
)

// Realm is a realm's network as it is now: wanted against actual (N9).
type Realm struct {
	Name   string `json:"name"`
	Number uint16 `json:"number"`
	// Network is "managed" or "existing".
	Network string `json:"network"`
	// State is one of the states above, since Since; Reason says why it is not RealmUp.
	State  string    `json:"state"`
	Since  time.Time `json:"since,omitzero"`
	Reason string    `json:"reason,omitempty"`
	// Address is the realm's own, VRF the device that its sockets are bound to, Table its routing table.
	Address netip.Prefix `json:"address"`
	VRF     string       `json:"vrf,omitempty"`
	Table   uint32       `json:"table,omitempty"`
	// Namespace of the tunnels' outer side; empty without tunnels.
	Namespace string `json:"namespace,omitempty"`
	// Tunnel is the one that traffic leaves by; empty if there is none, or none is up.
	Tunnel string `json:"tunnel,omitempty"`
	// Objects are all that the config wants of the kernel, in the order in which they are made.
	Objects []NetworkObject `json:"objects,omitempty"`
	// Repairs counts objects that were put back after somebody had changed or removed them.
	Repairs uint64 `json:"repairs"`
	// Leaks counts packets that had no business in this realm (N5), by reason: "clear-text", "wrong-realm".
	Leaks map[string]uint64 `json:"leaks,omitempty"`
}

// States of a network object.
const (
	ObjectOK      = "ok"
	ObjectMissing = "missing"
	ObjectDiffers = "differs"
	// ObjectFailed could not be made or mended: Problem says why.
	ObjectFailed = "failed"
)

// NetworkObject is one thing in the kernel that a realm wants.
type NetworkObject struct {
	// Kind is "namespace", "link", "address", "route", "rule" or "sysctl".
	Kind string `json:"kind"`
	// Name is unique among the realm's objects of the kind.
	Name string `json:"name"`
	// Want and Have are its attributes in words; Have is empty if it is missing.
	Want string `json:"want"`
	Have string `json:"have,omitempty"`
	// State is one of the states above, Problem what went wrong with the last attempt to mend it.
	State   string `json:"state"`
	Problem string `json:"problem,omitempty"`
}
