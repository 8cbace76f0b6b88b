// Command grafana reads dashboards and provisioned alert rules by the types that Grafana publishes, strictly: an unknown field,
// a wrong type or a missing field is an error. tests/stack/boards.py runs it.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/alerting"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// A file of rules: https://grafana.com/docs/grafana/latest/alerting/set-up/provision-alerting-resources/file-provisioning/
type provisioned struct {
	Groups []struct {
		Name   string
		Folder string
		OrgID  int64 `json:"orgId"`
		Rules  []map[string]any
	}
}

// The generated code returns an empty list of errors where it has found none, which is not nil.
func some(err error) error {
	if err != nil && err.Error() == "" {
		return nil
	}
	return err
}

func check(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var file provisioned
	if err := json.Unmarshal(raw, &file); err != nil {
		return err
	}
	if file.Groups == nil {
		var board dashboard.Dashboard
		if err := some(board.UnmarshalJSONStrict(raw)); err != nil {
			return err
		}
		return some(board.Validate())
	}
	for _, group := range file.Groups {
		for _, fields := range group.Rules {
			// What the file says once for the group is part of each rule's type.
			fields["ruleGroup"], fields["folderUID"], fields["orgID"] = group.Name, group.Folder, group.OrgID
			whole, err := json.Marshal(fields)
			if err != nil {
				return err
			}
			var rule alerting.Rule
			if err := some(rule.UnmarshalJSONStrict(whole)); err != nil {
				return fmt.Errorf("%v: %w", fields["title"], err)
			}
			if err := some(rule.Validate()); err != nil {
				return fmt.Errorf("%v: %w", fields["title"], err)
			}
		}
	}
	return nil
}

func main() {
	plugins.RegisterDefaultPlugins()
	failed := false
	for _, path := range os.Args[1:] {
		if err := check(path); err != nil {
			fmt.Printf("%s:\n%v\n", path, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}
