// Package vmlab runs a command in a virtual machine whose kernel has all that Tandem
// uses: VLAN, VRF, IPsec, traffic control. The machine is QEMU with a Debian kernel, needs
// no KVM, and sees the repository at its own path, so that a test binary runs in it as it
// does outside: `go test -exec "bin/tandem-lab vm" ./pkg/realm`.
//
// What it boots from is fetched from Debian's mirror once and kept in the user's cache.
package vmlab
