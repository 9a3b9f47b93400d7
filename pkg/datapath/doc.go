// Package datapath is the kernel engine: an XDP program that forwards RTP and RTCP
// between realms, and the maps that tell it how. bpf/README.md follows one packet
// through the program.
//
// Nothing is pinned: the program is attached by links that end with the process, so
// that not even kill -9 leaves a program or a flow behind. All that it leaves is VLAN
// receive offload turned off.
package datapath
