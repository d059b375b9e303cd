package console

import (
	_ "embed" // outlines of the land
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// landText holds the outlines of the land, from Natural Earth. generate.go writes it.
//
//go:embed data/land.txt
var landText string

// The map is Equal Earth, a projection on which areas keep their proportions. Latitudes beyond the edges are cut off.
const (
	mapWidth  = 1000.0
	northEdge = 84.0
	southEdge = -57.0
)

var (
	mapScale  = mapWidth / 2 / equalEarthX(180, 0)
	mapTop    = equalEarthY(northEdge) * mapScale
	mapHeight = mapTop - equalEarthY(southEdge)*mapScale
)

// equalEarth's coefficients are those of Šavrič, Patterson and Jenny (2018).
const ee1, ee2, ee3, ee4 = 1.340264, -0.081106, 0.000893, 0.003796

func equalEarthAngle(lat float64) float64 {
	return math.Asin(math.Sqrt(3) / 2 * math.Sin(lat*math.Pi/180))
}

func equalEarthX(lon, lat float64) float64 {
	t := equalEarthAngle(lat)
	t2 := t * t
	t6 := t2 * t2 * t2
	return 2 / math.Sqrt(3) * lon * math.Pi / 180 * math.Cos(t) / (ee1 + 3*ee2*t2 + t6*(7*ee3+9*ee4*t2))
}

func equalEarthY(lat float64) float64 {
	t := equalEarthAngle(lat)
	t2 := t * t
	t6 := t2 * t2 * t2
	return t * (ee1 + ee2*t2 + t6*(ee3+ee4*t2))
}

// project returns the point of the map for degrees.
func project(lon, lat float64) (x, y float64) {
	return mapWidth/2 + equalEarthX(lon, lat)*mapScale, mapTop - equalEarthY(lat)*mapScale
}

func point(x, y float64) string {
	return strconv.FormatFloat(x, 'f', 1, 64) + " " + strconv.FormatFloat(y, 'f', 1, 64)
}

// landPath returns the outlines of the land as an SVG path.
func landPath() string {
	var b strings.Builder
	for ring := range strings.Lines(landText) {
		lon, lat := 0, 0
		for i, f := range strings.Fields(ring) {
			east, north, _ := strings.Cut(f, ",")
			dx, _ := strconv.Atoi(east) // generated
			dy, _ := strconv.Atoi(north)
			lon, lat = lon+dx, lat+dy
			step := "L"
			if i == 0 || dx > 1800 || dx < -1800 { // a ring that crosses the edge of the map
				step = "M"
			}
			b.WriteString(step)
			b.WriteString(point(project(float64(lon)/10, float64(lat)/10)))
		}
		b.WriteByte('Z')
	}
	return b.String()
}

// outlinePath returns the edge of the map.
func outlinePath() string {
	var b strings.Builder
	for side, lon := range []float64{-180, 180} {
		for i := 0; i <= 40; i++ {
			lat := southEdge + (northEdge-southEdge)*float64(i)/40
			if side == 1 {
				lat = northEdge + southEdge - lat
			}
			b.WriteString([]string{"M", "L"}[min(i+side, 1)])
			b.WriteString(point(project(lon, lat)))
		}
	}
	return b.String() + "Z"
}

// gridPath returns a meridian and a parallel for each 30 degrees.
func gridPath() string {
	var b strings.Builder
	for lon := -150.0; lon <= 150; lon += 30 {
		for i := 0; i <= 20; i++ {
			b.WriteString([]string{"M", "L"}[min(i, 1)])
			b.WriteString(point(project(lon, southEdge+(northEdge-southEdge)*float64(i)/20)))
		}
	}
	for lat := -30.0; lat <= 60; lat += 30 {
		b.WriteString("M" + point(project(-180, lat)) + "L" + point(project(180, lat)))
	}
	return b.String()
}

// sunAt returns the point of the Earth above which the sun stands, in degrees, to about a degree.
func sunAt(t time.Time) (lon, lat float64) {
	t = t.UTC()
	days := float64(t.Unix()-946728000) / 86400 // since noon of 2000-01-01
	mean := (357.529 + 0.98560028*days) * math.Pi / 180
	long := (280.459 + 0.98564736*days + 1.915*math.Sin(mean) + 0.020*math.Sin(2*mean)) * math.Pi / 180
	tilt := (23.439 - 0.00000036*days) * math.Pi / 180
	lat = math.Asin(math.Sin(tilt)*math.Sin(long)) * 180 / math.Pi
	right := math.Atan2(math.Cos(tilt)*math.Sin(long), math.Cos(long)) * 180 / math.Pi
	sidereal := 280.46061837 + 360.98564736629*days
	return math.Remainder(right-sidereal, 360), lat
}

// nightPath returns where the sun is lower than an altitude in degrees. It is drawn twice, a turn of the Earth apart,
// and the outline cuts it off.
func nightPath(t time.Time, altitude float64) string {
	lon, decl := sunAt(t)
	dark := lon + 180
	if dark > 180 {
		dark -= 360
	}
	d, h := decl*math.Pi/180, altitude*math.Pi/180
	var west, east []string // edges from south to north
	shift := [...]float64{-360, 0, 360}
	var b strings.Builder
	flush := func() {
		if len(west) == 0 {
			return
		}
		for i := range west {
			b.WriteString([]string{"M", "L"}[min(i, 1)] + west[i])
		}
		for i := len(east) - 1; i >= 0; i-- {
			b.WriteString("L" + east[i])
		}
		b.WriteByte('Z')
		west, east = west[:0], east[:0]
	}
	for _, by := range shift {
		if math.Abs(dark+by) > 360 {
			continue
		}
		for lat := southEdge; lat <= northEdge; lat += 1.5 {
			p := lat * math.Pi / 180
			cos := (math.Sin(h) - math.Sin(p)*math.Sin(d)) / (math.Cos(p) * math.Cos(d)) // of the hour angle at which the sun sets
			if cos >= 1 {                                                                // night all day
				cos = 1
			}
			if cos <= -1 { // no night
				flush()
				continue
			}
			half := 180 - math.Acos(cos)*180/math.Pi
			x1, y := project(dark+by-half, lat)
			x2, _ := project(dark+by+half, lat)
			west, east = append(west, point(x1, y)), append(east, point(x2, y))
		}
		flush()
	}
	return b.String()
}

// landSVG is the file of the land, which the pages refer to: a browser loads it once.
func landSVG() string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f"><path id="land" d="%s"/><path id="grid" fill="none" d="%s"/></svg>`,
		mapWidth, mapHeight, landPath(), gridPath())
}
