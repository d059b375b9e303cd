package browsertest

import (
	"context"
	_ "embed" // axe-core
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"nightferry/internal/api"
	"nightferry/internal/console"
	"nightferry/internal/consoletest"
	"nightferry/internal/rights"
)

var shots = flag.String("shots", "", "write a picture of each screen to this folder")

//go:embed testdata/axe.min.js
var axe string

// screens are a URL of each screen, and the name of its picture.
var screens = []struct{ name, path string }{
	{"tonight", "/"}, {"forecast-hour", "/?at=9h"}, {"wall", "/?wall=1"}, {"live", "/live"}, {"sites", "/sites"}, {"site", "/sites/milano"}, {"halt", "/halt?scope=region&value=ap"},
	{"proof", "/halt/3f9a2100000000000000000000000000"}, {"where", "/where?path=package/tools/setup.exe"}, {"incidents", "/incidents"}, {"runs", "/runs"}, {"run", ""}, {"releases", "/releases"}, {"forecast", "/forecast?days=3"}, {"audit", "/audit"}, {"publish", "/publish?channel=package"}, {"logs", "/logs?domain=plant"}, {"log", ""}, {"refused", "/nowhere"},
}

// serve serves the console over a fleet to a principal, with the events of the contract.
func serve(t *testing.T, w *consoletest.World, p rights.Principal) string {
	t.Helper()
	pages := console.New(console.Options{Backend: w.Backend(), SignOut: "/signin/out"})
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/events" {
			sendEvents(out, r, w.Backend())
			return
		}
		pages.ServeHTTP(out, r.WithContext(rights.With(r.Context(), p)))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// sendEvents sends events as the contract does.
func sendEvents(out http.ResponseWriter, r *http.Request, b api.Backend) {
	out.Header().Set("Content-Type", "text/event-stream")
	_ = b.Events.Follow(r.Context(), "", func(l *api.EventLine) error {
		text := ": alive\n\n"
		if l.Event != nil {
			body, err := json.Marshal(l.Event)
			if err != nil {
				return err
			}
			text = fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", l.ID, l.Event.Kind, body)
		}
		if _, err := out.Write([]byte(text)); err != nil {
			return err
		}
		return http.NewResponseController(out).Flush()
	})
}

// browser is one tab, and the violations that it reported.
type browser struct {
	context.Context
	mu       sync.Mutex
	reported []string // messages of the console and of the security policy
}

// open starts a browser with a new profile, which chromedp removes.
func open(t *testing.T) *browser {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{chromedp.NoSandbox, chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.WindowSize(1280, 900), chromedp.WSURLReadTimeout(time.Minute)}
	for _, name := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "hide-scrollbars", "ignore-certificate-errors"} {
		options = append(options, chromedp.Flag(name, true))
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{Context: ctx}
	chromedp.ListenTarget(ctx, func(ev any) {
		text := ""
		switch x := ev.(type) {
		case *log.EventEntryAdded:
			if x.Entry.Level == log.LevelError {
				text = x.Entry.Text
			}
		case *runtime.EventExceptionThrown:
			text = x.ExceptionDetails.Error()
		}
		if text != "" && !strings.Contains(text, "responded with a status of 40") { // pages that do not exist, and refused requests
			b.mu.Lock()
			b.reported = append(b.reported, text)
			b.mu.Unlock()
		}
	})
	b.do(t, log.Enable(), runtime.Enable())
	return b
}

func (b *browser) do(t *testing.T, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(b, actions...); err != nil {
		t.Fatal(err)
	}
}

// check fails if the browser has reported a violation since the last check.
func (b *browser) check(t *testing.T, what string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, text := range b.reported {
		t.Errorf("%s: the browser reports %q", what, text)
	}
	b.reported = nil
}

// theme sets dark or light.
func theme(name string) chromedp.Action {
	return emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}})
}

// violations runs axe-core on the page that is shown.
func (b *browser) violations(t *testing.T) (out []string) {
	t.Helper()
	var list []struct {
		ID, Help string
		Nodes    []struct{ HTML string }
	}
	b.do(t, chromedp.Evaluate(axe+";0", nil), chromedp.Evaluate(`axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then(r => r.violations.map(v => ({ID: v.id, Help: v.help, Nodes: v.nodes.map(n => ({HTML: n.html}))})))`, &list,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	for _, v := range list {
		out = append(out, fmt.Sprintf("%s (%s), %d times, first %.200s", v.ID, v.Help, len(v.Nodes), v.Nodes[0].HTML))
	}
	return out
}

// TestScreens shows each screen in dark, in light and at twice the size: axe-core finds nothing, the browser reports
// nothing, and nothing is wider than the window.
func TestScreens(t *testing.T) {
	w := consoletest.New()
	url := serve(t, w, rights.Principal{Name: "anna", Role: rights.Admin})
	b := open(t)
	b.do(t, chromedp.Navigate(url+"/publish?channel=package"), chromedp.Click("form.card button.go", chromedp.ByQuery), chromedp.WaitVisible("#last", chromedp.ByQuery))
	for _, look := range []struct {
		name, theme   string
		width, height int64
	}{{"dark", "dark", 1280, 900}, {"light", "light", 1280, 900}, {"zoom", "dark", 640, 450}, {"phone", "light", 375, 800}} {
		b.do(t, theme(look.theme), emulation.SetDeviceMetricsOverride(look.width, look.height, 1, false))
		for _, s := range screens {
			switch s.name {
			case "run":
				s.path = "/runs/" + w.RunList[5].ID.String()
			case "log":
				s.path = "/logs/" + runOf(w, "milano")
			}
			what := s.name + ", " + look.name
			var wide bool
			var title string
			b.do(t, chromedp.Navigate(url+s.path), chromedp.WaitVisible("h1", chromedp.ByQuery), chromedp.Title(&title), chromedp.Evaluate(`document.documentElement.scrollWidth > innerWidth`, &wide))
			if wide {
				t.Errorf("%s is wider than the window", what)
			}
			if look.name == "dark" {
				var height int
				b.do(t, chromedp.Evaluate(`document.querySelector(".top").offsetHeight`, &height))
				if height > 64 {
					t.Errorf("%s: the header has more than one row: %d pixels", what, height)
				}
			}
			if !strings.HasSuffix(title, " · nightferry") {
				t.Errorf("%s has the title %q", what, title)
			}
			if look.name != "phone" { // to axe-core it is the same as zoom
				for _, v := range b.violations(t) {
					t.Errorf("%s: %s", what, v)
				}
			}
			b.check(t, what)
			if *shots != "" && (look.name == "dark" || look.name == "light" && s.name == "tonight" || look.name == "phone" && (s.name == "tonight" || s.name == "halt")) {
				b.shoot(t, s.name+"-"+look.name)
			}
		}
	}
}

// shoot writes a picture of the page.
func (b *browser) shoot(t *testing.T, name string) {
	t.Helper()
	var pic []byte
	b.do(t, chromedp.ActionFunc(func(ctx context.Context) (err error) {
		pic, err = page.CaptureScreenshot().WithFormat(page.CaptureScreenshotFormatWebp).WithQuality(75).WithCaptureBeyondViewport(false).Do(ctx)
		return err
	}))
	if err := os.WriteFile(filepath.Join(*shots, name+".webp"), pic, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestWithoutScript reads each screen and halts a region in a browser that runs no script.
func TestWithoutScript(t *testing.T) {
	w := consoletest.New()
	url := serve(t, w, rights.Principal{Name: "anna", Role: rights.Admin})
	b := open(t)
	b.do(t, emulation.SetScriptExecutionDisabled(true))
	for _, s := range screens {
		if s.path == "" {
			continue
		}
		var text string
		b.do(t, chromedp.Navigate(url+s.path), chromedp.Text("main", &text, chromedp.ByQuery))
		if len(strings.Fields(text)) < 8 {
			t.Errorf("%s reads %q", s.name, text)
		}
	}
	var text string
	b.do(t, chromedp.Navigate(url+"/halt?scope=all"), chromedp.SendKeys(`input[name=reason]`, "wrong driver", chromedp.ByQuery), chromedp.SendKeys(`input[name=typed]`, "all", chromedp.ByQuery),
		chromedp.Click(`button.stop`, chromedp.ByQuery), chromedp.WaitVisible("#proof", chromedp.ByQuery), chromedp.Text("#proof", &text, chromedp.ByQuery))
	if !strings.Contains(text, "wrong driver") || !strings.Contains(text, "has not confirmed") || len(w.Deeds()) != 1 {
		t.Errorf("the proof board reads %q; done: %q", text, w.Deeds())
	}
	b.check(t, "without script")
}

// TestLive changes the fleet: the page follows within two loads, without a reload, and a hidden tab closes its stream.
func TestLive(t *testing.T) {
	w := consoletest.New()
	url := serve(t, w, rights.Principal{Name: "anna", Role: rights.Admin})
	b := open(t)
	b.do(t, chromedp.Navigate(url+"/"), chromedp.WaitVisible("#live:not(.off)", chromedp.ByQuery))
	row := `[...document.querySelectorAll("#rows tr")].find(r => r.innerText.includes("osaka"))?.innerText.includes("failing")`
	w.Advance(time.Minute) // pages that were computed before are no longer fresh
	w.Change("osaka", "package", "failing")
	b.do(t, chromedp.Poll(row, nil, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(time.Minute)))
	b.check(t, "live")
}

// TestSame compares the numbers of Tonight with the backend's answers.
func TestSame(t *testing.T) {
	w := consoletest.New()
	url := serve(t, w, rights.Principal{Name: "anna", Role: rights.Admin})
	b := open(t)
	var shown [][]string
	b.do(t, chromedp.Navigate(url+"/sites"), chromedp.Evaluate(`[...document.querySelectorAll("#rows tbody tr")].map(r => [r.cells[1].innerText.trim(), r.cells[2].innerText.trim(), r.cells[3].innerText.trim(), r.cells[5].innerText.replace(/\s+/g, " ").trim()])`, &shown))
	var want [][]string
	for _, s := range w.SiteList {
		var channels []string
		for _, c := range s.Channels {
			text := fmt.Sprintf("%s %d", c.Channel, c.Holds)
			if c.Holds != c.Wants {
				text += fmt.Sprintf(" → %d", c.Wants)
			}
			channels = append(channels, text+" "+c.State)
		}
		want = append(want, []string{s.Site, s.Region, s.Domain, strings.Join(channels, " ")})
	}
	if fmt.Sprint(shown) != fmt.Sprint(want) {
		t.Errorf("the table shows\n%v\nthe backend answers\n%v", shown, want)
	}
}

// TestHostileLayout shows texts that are far too long, or markup: no page becomes wider than the window, and no script of
// theirs runs.
func TestHostileLayout(t *testing.T) {
	w := consoletest.Hostile()
	url := serve(t, w, rights.Principal{Name: consoletest.Texts[0], Role: rights.Admin})
	b := open(t)
	for _, width := range []int64{1280, 375} {
		b.do(t, emulation.SetDeviceMetricsOverride(width, 800, 1, false))
		for _, path := range []string{"/", "/live", "/sites", "/incidents", "/halt", "/runs", "/releases", "/forecast", "/audit", "/logs", "/where?path=x"} {
			var wide bool
			b.do(t, chromedp.Navigate(url+path), chromedp.WaitVisible("h1", chromedp.ByQuery), chromedp.Evaluate(`document.documentElement.scrollWidth > innerWidth`, &wide))
			if wide {
				t.Errorf("%s is wider than %d pixels", path, width)
			}
			b.check(t, path)
		}
	}
}
