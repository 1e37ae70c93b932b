package github

import (
	stdjson "encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/status"
)

// Every example that GitHub publishes of the events we hear goes where it belongs, whole. What then becomes of it is
// told by TestExamples of cmd/signalbox.
func TestRoute_examples(t *testing.T) {
	b, err := os.ReadFile("testdata/examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var examples map[string][]stdjson.RawMessage
	if err := stdjson.Unmarshal(b, &examples); err != nil {
		t.Fatal(err)
	}
	h := newHook(t, "s")
	for _, event := range []string{
		"pull_request", "issue_comment", "check_run", "check_suite", "label", "merge_group", "workflow_run", "membership", "team", "installation",
	} {
		if len(examples[event]) == 0 {
			t.Errorf("no example of %s", event)
		}
		stored := 0
		for _, body := range examples[event] {
			to, err := h.Route(headers(event), body)
			switch {
			case err != nil, to.Flaw != "", to.Ping:
				t.Errorf("%s: %+v, %v\n%s", event, to, err, body)
				continue
			case to.Kind == "" && to.Ignored == "":
				t.Errorf("%s goes nowhere: %+v", event, to)
			case to.Kind != "":
				stored++
			}
			if event == "pull_request" {
				n := mail[prmanager.Note](t, to)
				if n.Pull.Head.SHA == "" || n.Pull.Base.Name == "" || n.Pull.Author.ID == 0 || n.Sender.ID == 0 || n.Pull.UpdatedAt.IsZero() {
					t.Errorf("%s lacks something: %+v", event, n)
				}
			}
			if to.MailKind == status.KindCheckRun && mail[status.CheckRun](t, to).By.ID == 0 {
				t.Errorf("%s by nobody: %s", event, body)
			}
		}
		// What is stored depends on the examples only: none of their comments is a command, none of their runs one of a pull request.
		want := map[string]bool{"pull_request": true, "check_run": true, "merge_group": true}
		if want[event] != (stored > 0) {
			t.Errorf("%s: %d of %d are stored", event, stored, len(examples[event]))
		}
	}
	if size := len(b); size > 150<<10 || strings.Contains(string(b), `"title"`) {
		t.Errorf("the examples are not reduced: %d bytes", size)
	}
}
