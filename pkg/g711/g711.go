// Package g711 converts between the two laws of ITU-T G.711 octet by octet, without
// linear samples in between (Tables 3 and 4 of the Recommendation, M14).
package g711

// ALawToULaw and ULawToALaw give the octet of the other law, as both are on the wire
// (RFC 3551 section 4.5.14): even bits of A-law and all magnitude bits of mu-law inverted.
var (
	ALawToULaw = expand(func(octet byte) byte {
		sign, value := octet&0x80, (octet^0x55)&0x7f
		return sign | (ulawOf[value] ^ 0x7f)
	})
	ULawToALaw = expand(func(octet byte) byte {
		sign, value := octet&0x80, (octet^0x7f)&0x7f
		return sign | ((alawOf[value] - 1) ^ 0x55)
	})
)

func expand(convert func(byte) byte) (octets [256]byte) {
	for i := range octets {
		octets[i] = convert(byte(i))
	}
	return octets
}

// Convert replaces each octet of payload by what table has for it.
func Convert(payload []byte, table *[256]byte) {
	for i, octet := range payload {
		payload[i] = table[octet]
	}
}

// alawOf is Table 3/G.711: the A-law decoder output value number, 1-128, for each
// mu-law one, 0-127.
//
// Mu-80 becomes A-81 although A-80 is nearer, and in ulawOf A-80 becomes mu-79 although
// mu-80 is: so that bits 1 to 7 of an octet survive A-mu-A (Note 3 to the tables, of 1988).
// Tables that circulate as "corrected" (Sun's g711.c since 1994) undo just that.
var alawOf = [128]byte{
	1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8,
	9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
	25, 27, 29, 31, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44,
	46, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62,
	64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79,
	81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96,
	97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112,
	113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128,
}

// ulawOf is Table 4/G.711: the mu-law decoder output value number, 0-127, for each
// A-law one, from 1.
var ulawOf = [128]byte{
	1, 3, 5, 7, 9, 11, 13, 15, 16, 17, 18, 19, 20, 21, 22, 23,
	24, 25, 26, 27, 28, 29, 30, 31, 32, 32, 33, 33, 34, 34, 35, 35,
	36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 48, 49, 49,
	50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 64,
	65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 79,
	80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95,
	96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111,
	112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 126, 127,
}
