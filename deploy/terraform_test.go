package deploy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/tokenkeep/tokenkeep/awssm"
	"github.com/tokenkeep/tokenkeep/gcpsm"
	"github.com/tokenkeep/tokenkeep/k8sstore"
	"github.com/tokenkeep/tokenkeep/vaultstore"
)

var update = flag.Bool("update", false, "write the policies of the modules and the chart")

// modules lists the folders with Terraform modules, and the folder of an example that uses a
// module.
var modules = []string{"terraform/aws", "terraform/gcp", "terraform/vault", "../examples/lambda-extension"}

// policies returns the contents that the files with the permissions of stores must have, by
// file name.
func policies() map[string]string {
	// The module has a variable for the partition, which awssm.Policy derives from the region.
	aws := awssm.Policy("${region}", "${account}", "${prefix}", &awssm.Options{KMSKeyID: "${key}"})
	gcp, _ := json.MarshalIndent(gcpsm.Permissions(), "", "  ") // strings always marshal
	return map[string]string{
		"terraform/aws/policy.json.tftpl":  strings.ReplaceAll(aws, `"arn:aws:`, `"arn:${partition}:`),
		"terraform/gcp/permissions.json":   string(gcp) + "\n",
		"terraform/vault/policy.hcl.tftpl": vaultstore.Policy("${mount}", "${prefix}"),
		"helm/tokenkeep/files/role.yaml":   k8sstore.Policy("{{ .namespace }}", "{{ .name }}"),
	}
}

// TestPolicies checks that the policy files of the modules and the chart equal the policies of
// the stores.
func TestPolicies(t *testing.T) {
	t.Parallel()
	for name, want := range policies() {
		if *update {
			if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s is not what the store needs: %v", name, err)
		}
	}
}

// A folder holds the parsed Terraform files of a directory.
type folder struct {
	path  string
	files []*hcl.File
	names map[string]bool // the names that expressions can refer to: var.x, local.x, data.T.x, module.x, T.x
}

func open(t *testing.T, path string) *folder {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(path, "*.tf"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %d files, %v", path, len(names), err)
	}
	m := &folder{path: path, names: map[string]bool{}}
	p := hclparse.NewParser()
	for _, name := range names {
		f, diags := p.ParseHCLFile(name)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if text := hclwrite.Format(f.Bytes); !bytes.Equal(text, f.Bytes) {
			t.Errorf("%s is not formatted", name)
		}
		m.files = append(m.files, f)
	}
	for _, b := range m.blocks() {
		switch kind := b.Type; kind {
		case "variable":
			m.names["var."+b.Labels[0]] = true
		case "data", "module":
			m.names[kind+"."+strings.Join(b.Labels, ".")] = true
		case "resource":
			m.names[strings.Join(b.Labels, ".")] = true
		case "locals":
			for name := range b.Body.Attributes {
				m.names["local."+name] = true
			}
		case "terraform", "output":
		default:
			t.Errorf("%s has a block %q", path, kind)
		}
	}
	return m
}

func (m *folder) blocks() (all []*hclsyntax.Block) {
	for _, f := range m.files {
		all = append(all, f.Body.(*hclsyntax.Body).Blocks...)
	}
	return all
}

func (m *folder) block(t *testing.T, kind string, labels ...string) *hclsyntax.Block {
	t.Helper()
	for _, b := range m.blocks() {
		if b.Type == kind && slices.Equal(b.Labels, labels) {
			return b
		}
	}
	t.Fatalf("%s has no %s %q", m.path, kind, labels)
	return nil
}

// referred returns the names to which the expressions of a body and of its nested blocks refer.
func referred(body *hclsyntax.Body) (names []string) {
	for _, a := range body.Attributes {
		for _, v := range a.Expr.Variables() {
			names = append(names, reference(v))
		}
	}
	for _, b := range body.Blocks {
		names = append(names, referred(b.Body)...)
	}
	return names
}

// reference returns the part of a path that names a declaration, such as var.x or data.T.x.
func reference(path hcl.Traversal) string {
	parts := []string{path.RootName()}
	for _, step := range path[1:] {
		if a, ok := step.(hcl.TraverseAttr); ok {
			parts = append(parts, a.Name)
		}
	}
	most := 2
	if parts[0] == "data" {
		most = 3
	}
	return strings.Join(parts[:min(most, len(parts))], ".")
}

// TestReferences checks that every file parses and is formatted, and that every name in an
// expression is declared. The test also checks that each variable has a description, and that
// each variable and local value is used.
func TestReferences(t *testing.T) {
	t.Parallel()
	for _, path := range modules {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			m := open(t, path)
			used := map[string]bool{"path.module": true}
			for _, b := range m.blocks() {
				if b.Type == "variable" {
					if _, described := b.Body.Attributes["description"]; !described {
						t.Errorf("variable %q has no description", b.Labels[0])
					}
				}
				for _, name := range referred(b.Body) {
					if name != "path.module" && name != "string" && name != "number" && name != "bool" && !m.names[name] {
						t.Errorf("%s %q refers to %s, which is not declared", b.Type, b.Labels, name)
					}
					used[name] = used[name] || b.Type != "variable"
				}
			}
			for name := range m.names {
				if (strings.HasPrefix(name, "var.") || strings.HasPrefix(name, "local.")) && !used[name] {
					t.Errorf("%s is not used", name)
				}
			}
		})
	}
}

// template renders a file with the given variables, as Terraform does.
func template(name string, values map[string]cty.Value) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	e, diags := hclsyntax.ParseTemplate(text, name, hcl.InitialPos)
	if diags.HasErrors() {
		return "", diags
	}
	v, diags := e.Value(&hcl.EvalContext{Variables: values})
	if diags.HasErrors() {
		return "", diags
	}
	return v.AsString(), nil
}

// functions returns the Terraform functions that the modules use.
func functions(dir string) map[string]function.Function {
	return map[string]function.Function{
		"jsondecode": stdlib.JSONDecodeFunc, "jsonencode": stdlib.JSONEncodeFunc,
		"file": function.New(&function.Spec{
			Params: []function.Parameter{{Name: "path", Type: cty.String}},
			Type:   function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				text, err := os.ReadFile(args[0].AsString())
				return cty.StringVal(string(text)), err
			},
		}),
		"templatefile": function.New(&function.Spec{
			Params: []function.Parameter{{Name: "path", Type: cty.String}, {Name: "vars", Type: cty.DynamicPseudoType}},
			Type:   function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				text, err := template(args[0].AsString(), args[1].AsValueMap())
				return cty.StringVal(text), err
			},
		}),
	}
}

// evaluate returns the value of an attribute of b. values holds the variables. evaluate adds the
// variable path to values.
func (m *folder) evaluate(t *testing.T, b *hclsyntax.Block, attribute string, values map[string]cty.Value) cty.Value {
	t.Helper()
	values["path"] = cty.ObjectVal(map[string]cty.Value{"module": cty.StringVal(m.path)})
	v, diags := b.Body.Attributes[attribute].Expr.Value(&hcl.EvalContext{Variables: values, Functions: functions(m.path)})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return v
}

// object returns an object whose members are strings. members alternates names and values.
func object(members ...string) cty.Value {
	values := map[string]cty.Value{}
	for i := 0; i < len(members); i += 2 {
		values[members[i]] = cty.StringVal(members[i+1])
	}
	return cty.ObjectVal(values)
}

// TestPolicyAWS checks that the module for AWS grants the policy that the store needs, in
// several partitions, and with and without a key.
func TestPolicyAWS(t *testing.T) {
	t.Parallel()
	const key = "arn:aws:kms:eu-central-1:123456789012:key/k"
	for _, test := range []struct{ partition, region, key string }{
		{"aws", "eu-central-1", ""}, {"aws", "eu-central-1", key}, {"aws-cn", "cn-north-1", ""}, {"aws-us-gov", "us-gov-west-1", ""},
	} {
		t.Run(fmt.Sprint(test.region, test.key != ""), func(t *testing.T) {
			t.Parallel()
			m := open(t, "terraform/aws")
			var locals *hclsyntax.Block
			for _, b := range m.blocks() {
				if b.Type == "locals" {
					locals = b
				}
			}
			local := map[string]cty.Value{"key": cty.StringVal(test.key), "encrypted": cty.BoolVal(test.key != "")}
			values := map[string]cty.Value{
				"var": object("prefix", "oauth/crm"),
				"data": cty.ObjectVal(map[string]cty.Value{
					"aws_partition":       cty.ObjectVal(map[string]cty.Value{"current": object("partition", test.partition)}),
					"aws_region":          cty.ObjectVal(map[string]cty.Value{"current": object("region", test.region)}),
					"aws_caller_identity": cty.ObjectVal(map[string]cty.Value{"current": object("account_id", "123456789012")}),
				}),
				"local": cty.ObjectVal(local),
			}
			local["policy"] = m.evaluate(t, locals, "policy", values)
			values["local"] = cty.ObjectVal(local)
			got := m.evaluate(t, locals, "policy_json", values).AsString()
			want := awssm.Policy(test.region, "123456789012", "oauth/crm", &awssm.Options{KMSKeyID: test.key})
			var g, w any
			if err := json.Unmarshal([]byte(got), &g); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(want), &w); err != nil || !reflect.DeepEqual(g, w) {
				t.Errorf("%v: the module grants\n%s\nand the store needs\n%s", err, got, want)
			}
		})
	}
}

func TestPolicyGCP(t *testing.T) {
	t.Parallel()
	m := open(t, "terraform/gcp")
	b := m.block(t, "resource", "google_project_iam_custom_role", "tokenkeep")
	var got []string
	for _, v := range m.evaluate(t, b, "permissions", map[string]cty.Value{}).AsValueSlice() {
		got = append(got, v.AsString())
	}
	if !slices.Equal(got, gcpsm.Permissions()) {
		t.Errorf("the module grants %q", got)
	}
}

func TestPolicyVault(t *testing.T) {
	t.Parallel()
	m := open(t, "terraform/vault")
	b := m.block(t, "resource", "vault_policy", "tokenkeep")
	got := m.evaluate(t, b, "policy", map[string]cty.Value{"var": object("mount", "secret", "prefix", "oauth/crm")}).AsString()
	if want := vaultstore.Policy("secret", "oauth/crm"); got != want {
		t.Errorf("the module grants\n%s\nand the store needs\n%s", got, want)
	}
}

// TestLambda checks that the example uses the module for AWS, and gives the function and the
// policy the same prefix.
func TestLambda(t *testing.T) {
	t.Parallel()
	m := open(t, "../examples/lambda-extension")
	b := m.block(t, "module", "tokenkeep")
	if got := m.evaluate(t, b, "source", map[string]cty.Value{}).AsString(); got != "../../deploy/terraform/aws" {
		t.Errorf("the module is %q", got)
	}
	prefix := m.evaluate(t, b, "prefix", map[string]cty.Value{}).AsString()
	values := map[string]cty.Value{"var": object("token_user", "ann", "token_client", "app", "data_center", "eu")}
	for _, nested := range m.block(t, "resource", "aws_lambda_function", "crm").Body.Blocks {
		variables := m.evaluate(t, nested, "variables", values).AsValueMap()
		if got := variables["TOKEN_PREFIX"].AsString(); got != prefix {
			t.Errorf("the function has the prefix %q, and the policy %q", got, prefix)
		}
	}
}
