package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

const (
	// maxSize of a config file in bytes.
	maxSize = 1 << 20
	// maxDepth of nested collections; the grammar needs 4. The parser recurses
	// and takes quadratic time in it.
	maxDepth = 32
	// maxTokens of YAML: keys, values and punctuation. A config of 1,000 trunks and
	// 1,000 routes has about 60,000; the parser's time is quadratic in them.
	maxTokens = 100_000
)

// Load reads and checks a config file. The error is an *Errors with everything that
// is wrong with it, or says why the file could not be read.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return Parse(path, data)
}

// Parse checks the content of a config file; name is what findings call it. The
// error is an *Errors with everything that is wrong.
func Parse(name string, data []byte) (*Config, error) {
	r := newReport(name)
	c := new(Config)
	c.SetDefaults()
	if root := r.parse(data); root != nil {
		d := decoder{r}
		d.value(root, reflect.ValueOf(c).Elem(), field{}, "", place(root))
		r.addList(c.Validate())
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// parse returns the file's one document, or nil after reporting why there is none.
func (r *report) parse(data []byte) ast.Node {
	start := position{1, 1}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(data) > maxSize {
		r.add(start, invalid.Field{Problem: "the file is larger than 1 MiB", Remedy: "this cannot be a config of Tandem"})
		return nil
	}
	if at := invalidUTF8(data); at >= 0 {
		line := 1 + bytes.Count(data[:at], []byte("\n"))
		r.add(position{line, 1}, invalid.Field{Problem: "the line is not UTF-8", Remedy: "save the file as UTF-8"})
		return nil
	}
	tokens := lexer.Tokenize(string(data))
	if len(tokens) > maxTokens {
		r.add(start, invalid.Field{Problem: fmt.Sprintf("the file has more than %d keys, values and signs", maxTokens), Remedy: "this cannot be a config of Tandem"})
		return nil
	}
	if at, deep := tooDeep(tokens); deep {
		r.add(at, invalid.Field{Problem: fmt.Sprintf("lists and maps are nested more than %d deep", maxDepth), Remedy: "no key of the config needs that"})
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err)
		return nil
	}
	return r.document(file)
}

// syntax reports the one thing that the YAML parser stopped at.
func (r *report) syntax(err error) {
	at, problem := position{1, 1}, err.Error()
	var y yaml.Error
	if errors.As(err, &y) {
		problem = y.GetMessage()
		if t := y.GetToken(); t != nil && t.Position != nil {
			at = position{t.Position.Line, t.Position.Column}
		}
	}
	r.add(at, invalid.Field{Problem: "this is not YAML: " + problem, Remedy: "look at the indentation, quotes and brackets of this line and the one before"})
}

// document finds the file's one document.
func (r *report) document(file *ast.File) ast.Node {
	var root ast.Node
	for _, doc := range file.Docs {
		switch doc.Body.(type) {
		case nil, *ast.DirectiveNode, *ast.CommentGroupNode:
			continue
		}
		if root != nil {
			r.add(place(doc.Body), invalid.Field{Problem: "a second document starts here", Remedy: "keep one, and remove the --- between them"})
			return nil
		}
		root = doc.Body
	}
	if root == nil {
		r.add(position{1, 1}, invalid.Field{Problem: "the file is empty", Remedy: "start from docs/tandem.yaml"})
	}
	return root
}

// tooDeep finds where collections nest beyond maxDepth: in brackets, or as a row of
// dashes on one line. Indentation needs no check, it pays for its depth in bytes.
func tooDeep(tokens token.Tokens) (at position, deep bool) {
	brackets, dashes, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			dashes++
		}
		if brackets+dashes > maxDepth {
			return position{line, t.Position.Column}, true
		}
	}
	return position{}, false
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// place is where a node starts. A map's own token is the colon of its first key.
func place(n ast.Node) position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return place(m.Values[0].Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return position{t.Position.Line, t.Position.Column}
	}
	return position{1, 1}
}
