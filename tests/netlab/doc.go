// Package netlab builds small networks out of Linux network namespaces, runs real
// programs in them and watches what they put on the wire. It is for the lab command,
// the end-to-end tests and the benches.
//
// A [Topology] is a value; [Up] makes it real, [Lab.Close] takes it away. Everything a
// lab makes carries its prefix "tdm<pid>x<n>", and a lock held for the lab's life says
// whether its owner still lives: [Sweep] removes what dead owners left and nothing else.
//
// [Default] is a platform and two carriers, each on a cable of its own, for a gateway whose
// network somebody else has set up. [Trunked] is a switch with VLANs and carriers behind IPsec
// tunnels with the same addresses: the gateway gets one interface and makes the rest.
//
// It needs root (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN) and a kernel with veth;
// [TunnelsLack] says what else is missing for tunnels.
package netlab
