// Package sipua is the SIP edge of one realm: a socket, a strict reader, the
// transactions, and the dialogs that the rest of Tandem sees as call.Leg.
//
// A datagram's way in is socket.go (admitted by source before anything is parsed),
// message.go and validate.go (split, normalised and checked once), dispatch.go
// (matched to a transaction or a dialog), leg.go with uas.go and uac.go (what it
// means). One goroutine per socket takes it all the way, so messages of a peer are
// handled in the order in which they came, and nothing on that way may block.
//
// Of sipgo the transaction state machines are used: they decide when something is
// sent again and when a transaction is over; the bytes are always ours. sipgo's
// transport layer and dialogs are not used (it pools connections by address string
// and handles each message on a goroutine of its own, which loses their order), and
// neither is its parser (it does not keep a Via byte for byte, drops parameters of
// routes, and lets most of RFC 4475's invalid messages pass).
package sipua
