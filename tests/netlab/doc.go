// Package netlab builds small networks out of Linux network namespaces, runs real
// programs in them and watches what they put on the wire. It is for the lab command,
// the end-to-end tests and the benches.
//
// A [Topology] is a value; [Up] makes it real, [Lab.Close] takes it away. Everything a
// lab makes carries its prefix "tdm<pid>x<n>", and a lock held for the lab's life says
// whether its owner still lives: [Sweep] removes what dead owners left and nothing else.
//
// It needs root (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN) and a kernel with veth.
package netlab
