package netlab

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// VLANSupported reports whether the kernel has 802.1Q devices.
func VLANSupported() (bool, error) {
	missing, err := lacking([]feature{vlanFeature})
	return len(missing) == 0, err
}

// TunnelsLack names what this machine lacks for carriers on VLANs behind tunnels: nothing if
// [Trunked] can be brought up and used.
func TunnelsLack() ([]string, error) {
	missing, err := lacking([]feature{vlanFeature, vrfFeature, bridgeFeature, xfrmFeature, gcmFeature, netemFeature})
	for _, program := range []string{charonBinary, swanctl} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	return missing, err
}

// feature is one of the kernel's, and a way to use it in an empty namespace that has the
// devices v0 and v1.
type feature struct {
	name string
	try  func(v0 netlink.Link) error
}

var (
	vlanFeature = feature{"802.1Q", func(v0 netlink.Link) error {
		return netlink.LinkAdd(&netlink.Vlan{
			LinkAttrs: netlink.LinkAttrs{Name: "v0.1", ParentIndex: v0.Attrs().Index},
			VlanId:    1, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q,
		})
	}}
	vrfFeature = feature{"VRF", func(netlink.Link) error {
		return netlink.LinkAdd(&netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: "vrf0"}, Table: 1000})
	}}
	bridgeFeature = feature{"VLAN-aware bridges", func(netlink.Link) error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		return addBridge(h)
	}}
	xfrmFeature = feature{"xfrm interfaces", func(v0 netlink.Link) error {
		return netlink.LinkAdd(&netlink.Xfrmi{LinkAttrs: netlink.LinkAttrs{Name: "x0", ParentIndex: v0.Attrs().Index}, Ifid: 1})
	}}
	gcmFeature = feature{"ESP with AES-GCM", func(netlink.Link) error {
		return netlink.XfrmStateAdd(&netlink.XfrmState{
			Src: net.IPv4(192, 0, 2, 1), Dst: net.IPv4(192, 0, 2, 2), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Spi: 256,
			Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: bytes.Repeat([]byte{1}, 36), ICVLen: 128},
		})
	}}
	netemFeature = feature{"netem", func(v0 netlink.Link) error {
		return netlink.QdiscAdd(netem(v0, 1))
	}}
)

// lacking tries features in a namespace of their own.
func lacking(wanted []feature) (missing []string, err error) {
	err = onOwnThread(func() error {
		ns, err := netns.New() // nameless: gone with its last handle
		if err != nil {
			return err
		}
		defer ns.Close()
		pair := netlink.NewVeth(netlink.LinkAttrs{Name: "v0"})
		pair.PeerName = "v1"
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		v0, err := netlink.LinkByName("v0")
		if err != nil {
			return err
		}
		for _, f := range wanted {
			// What the kernel says to an unknown kind of thing differs from kind to kind.
			if err := f.try(v0); err != nil {
				missing = append(missing, f.name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("trying what the kernel has: %w", err)
	}
	return missing, nil
}
