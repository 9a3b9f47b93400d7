// Package datapath is the kernel engine: an XDP program that forwards RTP and RTCP
// between realms, and the maps that tell it how. bpf/README.md follows one packet
// through the program.
//
// Nothing is pinned: the program is attached by links that end with the process, so
// that not even kill -9 leaves anything behind.
package datapath
