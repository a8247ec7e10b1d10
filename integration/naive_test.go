package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"golang.org/x/oauth2"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A box is one secret that is read and written as a whole. Programs that keep a token
// without this module use secrets this way.
type box interface {
	get(ctx context.Context) ([]byte, error)
	put(ctx context.Context, data []byte) error
}

// refreshNaively refreshes a token with golang.org/x/oauth2, and without coordination between
// processes.
func (j job) refreshNaively(ctx context.Context, seen *probe, begin func()) (result, error) {
	b, err := j.Place.box(ctx, j.Naive, seen)
	if err != nil {
		return result{}, err
	}
	begin()
	old, err := readBox(ctx, b)
	if err != nil {
		return result{}, fmt.Errorf("get: %w", err)
	}
	config := oauth2.Config{
		ClientID: clientID, ClientSecret: clientSecret,
		Endpoint: oauth2.Endpoint{TokenURL: j.Accounts + tokenPath, AuthStyle: oauth2.AuthStyleInParams},
	}
	fresh, err := config.TokenSource(ctx, old).Token()
	if err != nil {
		return result{}, err
	}
	data, err := json.Marshal(fresh)
	if err != nil {
		return result{}, err
	}
	if err := b.put(ctx, data); err != nil {
		return result{}, fmt.Errorf("put: %w", err)
	}
	return result{Access: fresh.AccessToken}, nil
}

// box returns the box with the given name. The secret need not exist.
func (p place) box(ctx context.Context, name string, seen *probe) (box, error) {
	switch p.Backend {
	case VaultBackend.Name:
		client, err := p.vault(seen)
		if err != nil {
			return nil, err
		}
		return funcs{
			func(ctx context.Context) ([]byte, error) {
				s, err := client.KVv2(p.Mount).Get(ctx, p.Prefix+"-naive/"+name)
				if err != nil {
					return nil, err
				}
				text, _ := s.Data["token"].(string)
				return []byte(text), nil
			},
			func(ctx context.Context, data []byte) error {
				_, err := client.KVv2(p.Mount).Put(ctx, p.Prefix+"-naive/"+name, map[string]any{"token": string(data)})
				return err
			},
		}, nil
	case LocalstackBackend.Name:
		return p.awsBox(ctx, name, seen)
	case GCPBackend.Name:
		return p.gcpBox(ctx, name, seen)
	case KubernetesBackend.Name:
		return p.kubernetesBox(name, seen)
	case MySQLBackend.Name:
		return newRow(ctx, seen, "mysql", p.DSN, name)
	case sqlitePlace:
		return newRow(ctx, seen, "sqlite", p.sqlite(), name)
	default:
		path := p.Path + "." + name
		return funcs{
			func(context.Context) ([]byte, error) { return os.ReadFile(path) },
			func(_ context.Context, data []byte) error { return os.WriteFile(path, data, 0o600) },
		}, nil
	}
}

type funcs struct {
	read  func(ctx context.Context) ([]byte, error)
	write func(ctx context.Context, data []byte) error
}

func (f funcs) get(ctx context.Context) ([]byte, error)    { return f.read(ctx) }
func (f funcs) put(ctx context.Context, data []byte) error { return f.write(ctx, data) }

// A creating is a box whose secret must be created before the first write, with the function make.
type creating struct {
	funcs
	make func(ctx context.Context) error
}

func (p place) awsBox(ctx context.Context, name string, seen *probe) (box, error) {
	client, err := p.aws(ctx, seen)
	if err != nil {
		return nil, err
	}
	id := aws.String(p.Prefix + "-naive/" + name)
	return creating{funcs{
		func(ctx context.Context) ([]byte, error) {
			out, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: id})
			if err != nil {
				return nil, err
			}
			return []byte(aws.ToString(out.SecretString)), nil
		},
		func(ctx context.Context, data []byte) error {
			_, err := client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: id, SecretString: aws.String(string(data))})
			return err
		},
	}, func(ctx context.Context) error {
		_, err := client.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: id})
		return err
	}}, nil
}

func (p place) kubernetesBox(name string, seen *probe) (box, error) {
	client, err := p.kubernetes(seen)
	if err != nil {
		return nil, err
	}
	secrets, id := client.Secrets(p.Mount), p.Prefix+"-naive-"+name
	return creating{funcs{
		func(ctx context.Context) ([]byte, error) {
			o, err := secrets.Get(ctx, id, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			return o.Data["token"], nil
		},
		func(ctx context.Context, data []byte) error {
			change, err := json.Marshal(map[string]any{"data": map[string][]byte{"token": data}})
			if err == nil {
				_, err = secrets.Patch(ctx, id, types.MergePatchType, change, metav1.PatchOptions{})
			}
			return err
		},
	}, func(ctx context.Context) error {
		_, err := secrets.Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: id}}, metav1.CreateOptions{})
		return err
	}}, nil
}

func (p place) gcpBox(ctx context.Context, name string, seen *probe) (box, error) {
	client, err := p.gcp(ctx, seen)
	if err != nil {
		return nil, err
	}
	id := p.Prefix + "_naive-" + name
	secret := p.Parent + "/secrets/" + id
	return creating{funcs{
		func(ctx context.Context) ([]byte, error) {
			v, err := client.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: secret + "/versions/latest"})
			return v.GetPayload().GetData(), err
		},
		func(ctx context.Context, data []byte) error {
			_, err := client.AddSecretVersion(ctx, &secretmanagerpb.AddSecretVersionRequest{Parent: secret, Payload: &secretmanagerpb.SecretPayload{Data: data}})
			return err
		},
	}, func(ctx context.Context) error {
		_, err := client.CreateSecret(ctx, &secretmanagerpb.CreateSecretRequest{Parent: p.Parent, SecretId: id, Secret: &secretmanagerpb.Secret{
			Replication: &secretmanagerpb.Replication{Replication: &secretmanagerpb.Replication_Automatic_{Automatic: &secretmanagerpb.Replication_Automatic{}}},
		}})
		return err
	}}, nil
}

func fill(ctx context.Context, b box, t *oauth2.Token) error {
	if c, ok := b.(creating); ok {
		if err := c.make(ctx); err != nil {
			return err
		}
	}
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return b.put(ctx, data)
}

func readBox(ctx context.Context, b box) (*oauth2.Token, error) {
	data, err := b.get(ctx)
	if err != nil {
		return nil, err
	}
	t := new(oauth2.Token)
	return t, json.Unmarshal(data, t)
}

// newRow returns a box whose secret is the only row of a table.
func newRow(ctx context.Context, seen *probe, driver, dsn, name string) (box, error) {
	db, err := seen.db(driver, dsn)
	if err != nil {
		return nil, err
	}
	table := "naive_" + name
	return creating{funcs{
		func(ctx context.Context) (data []byte, err error) {
			err = db.QueryRowContext(ctx, "SELECT token FROM "+table).Scan(&data)
			return data, err
		},
		func(ctx context.Context, data []byte) error {
			_, err := db.ExecContext(ctx, "UPDATE "+table+" SET token = ?", string(data))
			return err
		},
	}, func(ctx context.Context) error {
		_, err := db.ExecContext(ctx, "CREATE TABLE "+table+" (token VARCHAR(4000))")
		if err == nil {
			_, err = db.ExecContext(ctx, "INSERT INTO "+table+" VALUES ('')")
		}
		return err
	}}, db.PingContext(ctx)
}
