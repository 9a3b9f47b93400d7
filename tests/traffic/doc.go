// Package traffic makes RTP inside the kernel, at any rate up to millions of packets per
// second, and counts what arrives: for the benches, and for tests that need a steady
// stream over an event.
//
// A [Sender] sends the packets of many flows out of a device, a [Receiver] takes them off
// another one and knows what is missing, late or came where it should not, and how long it
// took. A [Forwarder] between them is the floor that a gateway is compared to. Payload that
// is changed on the way is not recognised any more.
//
// It needs root and Linux 6.1 or newer. Receiver and forwarder want devices with native XDP;
// of a veth that frames are sent out of, the other end needs GRO or an XDP program.
package traffic
