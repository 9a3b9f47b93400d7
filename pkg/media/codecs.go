package media

import (
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// permitted keeps the codecs that both sides' trunks allow, in the offerer's order
// (M4). What only goes along with a codec (events, comfort noise) stays as long as a
// codec does. It returns nil if none does.
func permitted(offered []call.Codec, lists ...[]string) []call.Codec {
	var kept []call.Codec
	for _, c := range offered {
		if auxiliary(c) || allowed(c.Name, lists) {
			kept = append(kept, c)
		}
	}
	if speech(kept) == (call.Codec{}) {
		return nil
	}
	return kept
}

// allowed reports whether a name is on every list; an empty list has all names.
func allowed(name string, lists [][]string) bool {
	for _, list := range lists {
		if len(list) > 0 && !slices.ContainsFunc(list, func(n string) bool { return strings.EqualFold(n, name) }) {
			return false
		}
	}
	return true
}

// accepted keeps the codecs of an answer that were offered. The answerer may use
// other payload types for them than the offer did (RFC 3264 section 6.1).
func accepted(answered, offered []call.Codec) []call.Codec {
	return permitted(slices.DeleteFunc(slices.Clone(answered), func(c call.Codec) bool {
		return !slices.ContainsFunc(offered, func(o call.Codec) bool {
			return strings.EqualFold(o.Name, c.Name) && o.ClockRate == c.ClockRate && o.Channels == c.Channels
		})
	}))
}

// auxiliary formats share a stream with a codec and carry no speech by themselves.
func auxiliary(c call.Codec) bool {
	return strings.EqualFold(c.Name, "telephone-event") || strings.EqualFold(c.Name, "CN")
}

// speech is the first codec that carries it, the zero value if none does.
func speech(codecs []call.Codec) call.Codec {
	i := slices.IndexFunc(codecs, func(c call.Codec) bool { return !auxiliary(c) })
	if i < 0 {
		return call.Codec{}
	}
	return codecs[i]
}
