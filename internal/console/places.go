package console

import (
	_ "embed" // coordinates of zones
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"nightferry/internal/query"
)

// zonesText holds the principal city of each time zone, from the time zone database. generate.go writes it.
//
//go:embed data/zones.txt
var zonesText string

// zoneCities maps the name of a zone to the latitude and longitude of its principal city.
var zoneCities = sync.OnceValue(func() map[string][2]float64 {
	out := map[string][2]float64{}
	for l := range strings.Lines(zonesText) {
		if f := strings.Fields(l); len(f) == 3 {
			lat, _ := strconv.ParseFloat(f[1], 64) // generated
			lon, _ := strconv.ParseFloat(f[2], 64)
			out[f[0]] = [2]float64{lat, lon}
		}
	}
	return out
})

// spot is where a site is on the map.
type spot struct {
	X, Y   float64
	Near   string // the city that stands for it; empty: the configuration gives its coordinates
	Placed bool   // false: neither coordinates nor a zone with a city are known
}

// spotOf returns where a site is.
func spotOf(s *query.SiteStatus) spot {
	if s.Latitude != nil && s.Longitude != nil {
		x, y := project(*s.Longitude, math.Min(northEdge, math.Max(southEdge, *s.Latitude)))
		return spot{X: x, Y: y, Placed: true}
	}
	at, ok := zoneCities()[s.Zone]
	if !ok {
		return spot{}
	}
	x, y := project(at[1], at[0])
	return spot{x, y, strings.ReplaceAll(s.Zone[strings.LastIndexByte(s.Zone, '/')+1:], "_", " "), true}
}

// pin is a site on the map.
type pin struct {
	spot
	Site, Label string
	Mark        mark
	What        string // state in words
	LabelX      float64
	LabelY      float64 // below the mark
	Anchor      string  // of the label: start, middle or end
}

const (
	pinSpace  = 13.0 // between two pins of one place
	maxLabels = 90
	letter    = 6.4 // about the width of a letter of a label
)

// arrange moves pins of the same place apart, in a spiral, and labels those that have room for it. The worst mark is
// drawn last, above all others, and labelled first.
func arrange(pins []pin) []pin {
	slices.SortStableFunc(pins, func(a, b pin) int { return worse(b.Mark.Word) - worse(a.Mark.Word) })
	taken := map[[2]int]int{}
	for i := range pins {
		p := &pins[i]
		key := [2]int{int(p.X / pinSpace), int(p.Y / pinSpace)}
		n := taken[key]
		taken[key]++
		if n > 0 { // a sunflower's spiral
			r, a := pinSpace*0.62*math.Sqrt(float64(n)), float64(n)*2.39996
			p.X, p.Y = p.X+r*math.Cos(a), p.Y+r*math.Sin(a)
		}
		p.X, p.Y = math.Round(p.X*10)/10, math.Round(p.Y*10)/10
	}
	type box struct{ left, right, top, bottom float64 }
	var boxes []box
	free := func(x box) bool {
		return x.left > 0 && x.right < mapWidth && !slices.ContainsFunc(boxes, func(o box) bool {
			return x.left < o.right && o.left < x.right && x.top < o.bottom && o.top < x.bottom
		})
	}
	for _, p := range pins {
		boxes = append(boxes, box{p.X - 6, p.X + 6, p.Y - 6, p.Y + 6})
	}
	for i := range pins {
		p := &pins[i]
		if len(pins) > maxLabels {
			break
		}
		name := []rune(p.Site)
		if len(name) > 18 {
			name = append(name[:17], '…')
		}
		w := float64(len(name)) * letter
		right, left := box{p.X + 7, p.X + 10 + w, p.Y - 7, p.Y + 7}, box{p.X - 10 - w, p.X - 7, p.Y - 7, p.Y + 7}
		above, below := box{p.X - w/2, p.X + w/2, p.Y - 20, p.Y - 7}, box{p.X - w/2, p.X + w/2, p.Y + 7, p.Y + 20}
		switch {
		case free(right):
			p.Label, p.Anchor, p.LabelX = string(name), "start", p.X+10
			boxes = append(boxes, right)
		case free(left):
			p.Label, p.Anchor, p.LabelX = string(name), "end", p.X-10
			boxes = append(boxes, left)
		case free(above):
			p.Label, p.Anchor, p.LabelX, p.LabelY = string(name), "middle", p.X, -14
			boxes = append(boxes, above)
		case free(below):
			p.Label, p.Anchor, p.LabelX, p.LabelY = string(name), "middle", p.X, 14
			boxes = append(boxes, below)
		}
	}
	slices.Reverse(pins)
	return pins
}
