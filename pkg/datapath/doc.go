// Package datapath is the kernel engine: an XDP and a TC program that forward RTP and RTCP
// between realms, and the maps that tell them how. bpf/README.md follows one packet
// through the programs.
//
// With Config.Pins programs, maps and flows outlive the process, below a directory on a
// bpffs:
//
//	xdp-<ifindex>, tc-<ifindex>  the links by which the programs are attached
//	poll-<program>               the link to the tracepoint that tells where bursts end
//	<generation>/<map>           one set of maps
//	undo                         what is to be put back on which device
//
// A start takes the set of maps that the attached programs use, if it is just what it would
// have made itself, and replaces the programs through the links: each packet meets the
// former or the new one. If it is not (another ABI, other realms, other sizes), flows are
// copied into a new set first, by (realm, address, port), and by the names of fields. What
// the former programs count after that is added when they have ended. At the end it is
// asserted that on each device runs the program of this process, on the pinned maps.
//
// Every step leaves what the next start can go on from: a set of maps counts only when an
// attached program uses it, a program is attached only to a set that is complete, and of
// devices that run on different sets each one's flows are taken from its own.
//
// Unload takes all of it away. VLAN receive offload, which takes tags out of frames, is off as long
// as there is a process or a flow: Close puts it back if it leaves no flow, else Unload does.
//
// Without pins everything goes with the process, except TC filters on kernels before 6.6 and
// VLAN receive offload when it is killed.
package datapath
