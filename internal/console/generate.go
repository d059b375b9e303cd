//go:build ignore

// Generate writes land.txt and zones.txt, from land-110m.json of the npm package world-atlas (Natural Earth, public
// domain) and from zone.tab and tzdata.zi of the time zone database (public domain):
//
//	go run generate.go land-110m.json /usr/share/zoneinfo
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fail("usage: go run generate.go land-110m.json ZONEINFO")
	}
	for name, make := range map[string]func() (string, error){
		"land.txt":  func() (string, error) { return land(os.Args[1]) },
		"zones.txt": func() (string, error) { return zones(os.Args[2]) },
	} {
		text, err := make()
		if err == nil {
			err = os.WriteFile(filepath.Join("data", name), []byte(text), 0o644)
		}
		if err != nil {
			fail(err)
		}
	}
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}

// topology is the part of TopoJSON that the file uses.
type topology struct {
	Transform struct{ Scale, Translate [2]float64 }
	Arcs      [][][2]float64
	Objects   map[string]struct{ Geometries []struct{ Arcs [][][]int } }
}

const (
	south    = -58  // land that is south of it whole is left out: no site is in Antarctica
	smallest = 0.35 // degrees: a smaller ring is left out
)

// land returns one line for each ring: pairs of longitude and latitude in tenths of a degree, each after the first
// relative to the one before.
func land(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var t topology
	if err := json.Unmarshal(raw, &t); err != nil {
		return "", err
	}
	for _, arc := range t.Arcs {
		for i := range arc {
			for k := range 2 {
				if i > 0 {
					arc[i][k] += arc[i-1][k]
				}
			}
		}
	}
	var b strings.Builder
	for _, polygon := range t.Objects["land"].Geometries[0].Arcs {
		for _, ring := range polygon {
			var points [][2]int
			least, most := [2]float64{math.Inf(1), math.Inf(1)}, [2]float64{math.Inf(-1), math.Inf(-1)}
			for _, n := range ring {
				arc := slices.Clone(t.Arcs[max(n, ^n)])
				if n < 0 {
					slices.Reverse(arc)
				}
				for _, p := range arc {
					var q [2]int
					for k := range 2 {
						x := p[k]*t.Transform.Scale[k] + t.Transform.Translate[k]
						least[k], most[k] = min(least[k], x), max(most[k], x)
						q[k] = int(math.Round(x * 10))
					}
					if len(points) == 0 || points[len(points)-1] != q {
						points = append(points, q)
					}
				}
			}
			if most[1] < south || max(most[0]-least[0], most[1]-least[1]) < smallest || len(points) < 4 {
				continue
			}
			last := [2]int{}
			for i, p := range points {
				fmt.Fprintf(&b, "%s%d,%d", []string{"", " "}[min(i, 1)], p[0]-last[0], p[1]-last[1])
				last = p
			}
			b.WriteByte('\n')
		}
	}
	return b.String(), nil
}

// zones returns one line for each name of a zone: name, latitude and longitude of its principal city, in degrees.
func zones(dir string) (string, error) {
	table, err := os.ReadFile(filepath.Join(dir, "zone.tab"))
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(filepath.Join(dir, "tzdata.zi"))
	if err != nil {
		return "", err
	}
	at := map[string]string{}
	for l := range strings.Lines(string(table)) {
		if f := strings.Fields(l); len(f) >= 3 && !strings.HasPrefix(l, "#") {
			n := strings.LastIndexAny(f[1], "+-")
			at[f[2]] = fmt.Sprintf("%.1f %.1f", degrees(f[1][:n], 2), degrees(f[1][n:], 3))
		}
	}
	for l := range strings.Lines(string(source)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "L" && at[f[1]] != "" {
			at[f[2]] = cmp.Or(at[f[2]], at[f[1]])
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(at)) {
		if strings.Contains(name, "/") && !strings.HasPrefix(name, "Etc/") && !strings.HasPrefix(name, "US/") {
			fmt.Fprintf(&b, "%s %s\n", name, at[name])
		}
	}
	return b.String(), nil
}

// degrees reads ±DDMM or ±DDMMSS, with so many digits of degrees.
func degrees(text string, digits int) float64 {
	d, _ := strconv.Atoi(text[1 : 1+digits])
	m, _ := strconv.Atoi(text[1+digits : 3+digits])
	x := float64(d) + float64(m)/60
	if text[0] == '-' {
		x = -x
	}
	return x
}
