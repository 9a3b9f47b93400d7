package media

// Look is one round of what Run does every second.
func (m *Media) Look() error { return m.look(new(batch)) }
