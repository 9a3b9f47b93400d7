package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// field is a scalar, or a string of bytes, in the value of a map.
type field struct {
	name         string // as in C: "rule[1].dest"
	offset, size uint32
}

// layout reads the fields of a map's values from the map's own type information, which
// stays with it however old the program is that made it. The type goes by its name of today;
// there are no fields if it had another one, and one without a name if types are not told.
func layout(m *ebpf.Map, today btf.Type) ([]field, error) {
	opaque := []field{{size: m.ValueSize()}}
	if today == nil {
		return opaque, nil
	}
	handle, err := m.Handle()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return opaque, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: type information: %w", m, err)
	}
	defer handle.Close()
	spec, err := handle.Spec(nil)
	if err != nil {
		return nil, fmt.Errorf("%s: type information: %w", m, err)
	}
	value, err := spec.AnyTypeByName(today.TypeName())
	if errors.Is(err, btf.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: type information: %w", m, err)
	}
	fields, err := appendFields(nil, "", 0, value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	return fields, nil
}

func appendFields(list []field, name string, offset uint32, t btf.Type) ([]field, error) {
	t = btf.UnderlyingType(t)
	size, err := btf.Sizeof(t)
	if err != nil {
		return nil, fmt.Errorf("field %s: %w", name, err)
	}
	switch t := t.(type) {
	case *btf.Int, *btf.Enum:
		return append(list, field{name, offset, uint32(size)}), nil
	case *btf.Array:
		one, err := btf.Sizeof(t.Type)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", name, err)
		}
		if one == 1 {
			return append(list, field{name, offset, uint32(size)}), nil
		}
		for i := range t.Nelems {
			if list, err = appendFields(list, fmt.Sprintf("%s[%d]", name, i), offset+i*uint32(one), t.Type); err != nil {
				return nil, err
			}
		}
		return list, nil
	case *btf.Struct:
		for _, m := range t.Members {
			if m.BitfieldSize != 0 {
				return nil, fmt.Errorf("field %s.%s is a bit field", name, m.Name)
			}
			inner := m.Name
			if name != "" {
				inner = name + "." + m.Name
			}
			if list, err = appendFields(list, inner, offset+m.Offset.Bytes(), m.Type); err != nil {
				return nil, err
			}
		}
		return list, nil
	default:
		return nil, fmt.Errorf("field %s: %s cannot be carried over", name, t)
	}
}

// move is a field that both of two layouts have.
type move struct {
	from, to, size uint32
}

// moves are what a value of one layout and one of another have in common, by the names of
// fields. A field that is wider now is filled up with zeros.
func moves(from, to []field) []move {
	old := map[string]field{}
	for _, f := range from {
		old[f.name] = f
	}
	var list []move
	for _, f := range to {
		if was, ok := old[f.name]; ok {
			list = append(list, move{from: was.offset, to: f.offset, size: min(was.size, f.size)})
		}
	}
	return list
}

// convert is a value in another layout. Fields that are new are zero.
func convert(value []byte, how []move, size uint32) []byte {
	to := make([]byte, size)
	for _, m := range how {
		copy(to[m.to:m.to+m.size], value[m.from:m.from+m.size])
	}
	return to
}
