// Command docgen writes the config's reference and its JSON Schema into a folder.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/tandem-sbc/tandem/pkg/config"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: docgen FOLDER")
		os.Exit(2)
	}
	for name, content := range map[string][]byte{"config.md": config.Reference(), "config.schema.json": config.Schema()} {
		if err := os.WriteFile(filepath.Join(os.Args[1], name), content, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "docgen:", err)
			os.Exit(1)
		}
	}
}
