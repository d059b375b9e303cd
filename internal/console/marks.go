package console

import "nightferry/internal/query"

// mark is how the pages show a state: by a shape, a colour and a word, so that none of them is needed alone. Shapes are
// the symbols of the template marks, colours the classes of console.css.
type mark struct {
	Shape string // name of a symbol
	Tone  string // good, moving, idle, warn, bad or none
	Word  string
}

// marksOf has one mark for each state of a channel at a site, the best first: the worst one of its channels is the mark
// of a site.
var marksOf = []mark{
	{"disc", "good", query.Current},
	{"ring", "idle", "waiting"},
	{"half", "idle", "due"},
	{"arrow", "moving", query.Running},
	{"square", "none", "never"},
	{"cross", "none", "away"},
	{"query", "warn", "unproven"},
	{"diamond", "warn", "failing"},
	{"diamond", "bad", "different"},
	{"diamond", "bad", "contradicted"},
	{"diamond", "bad", "contested"},
	{"octagon", "bad", "halted"},
}

// worse ranks a word. An unknown one ranks worst, so that it is seen.
func worse(word string) int {
	for i, m := range marksOf {
		if m.Word == word {
			return i
		}
	}
	return len(marksOf)
}

// markOf returns the mark of a state's word.
func markOf(word string) mark {
	if n := worse(word); n < len(marksOf) {
		return marksOf[n]
	}
	return mark{"query", "warn", word}
}

// siteState returns the worst state of a site's channels.
func siteState(s *query.SiteStatus) string {
	if len(s.Channels) == 0 {
		return "never"
	}
	word := s.Channels[0].State
	for _, c := range s.Channels[1:] {
		if worse(c.State) > worse(word) {
			word = c.State
		}
	}
	return word
}

// outcomes are the marks of runs that ended, by state.
func runMark(state string) mark {
	switch state {
	case "":
		return mark{"arrow", "moving", "under way"}
	case "verified", "published", "same", "nothing":
		return mark{"disc", "good", state}
	case "planned", "moved-on":
		return mark{"ring", "idle", state}
	case "stopped", "missed", "incomplete", "emptied":
		return mark{"query", "warn", state}
	}
	return mark{"diamond", "bad", state}
}
