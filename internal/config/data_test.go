package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDataFolderOfABrokenFile(t *testing.T) {
	good := string(Default(Starter{Dir: "/srv/ferry"}))
	for name, c := range map[string]struct {
		text, want string
	}{
		"good":        {good, "/srv/ferry/data"},
		"unknown key": {good + "\nnonsense: 1\n", "/srv/ferry/data"},
		"bad store":   {strings.Replace(good, "s3://", "ftp://", 1), "/srv/ferry/data"},
		"bad data":    {strings.Replace(good, "data: '/srv", "data: '../srv", 1), ""},
		"not YAML":    {good + "\n- [", ""},
		"newer":       {strings.Replace(good, "version: 1", "version: 2", 1), ""},
	} {
		path := filepath.Join(t.TempDir(), "nightferry.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := DataFolder(path)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}
