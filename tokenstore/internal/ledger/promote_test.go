package ledger_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
	"github.com/tokenkeep/tokenkeep/tokenstore/internal/ledger"
	"github.com/tokenkeep/tokenkeep/tokenstore/memstore"
)

// A lagging driver reports a ReadLag, so that its reads count as possibly out of date. If
// onCreate is set, the next successful Create calls onCreate, and then reports that the
// response was lost.
type lagging struct {
	driver.Secrets
	onCreate func()
}

func (d *lagging) Properties() driver.Properties {
	p := d.Secrets.Properties()
	p.ReadLag = time.Minute
	return p
}

func (d *lagging) Create(ctx context.Context, name string, p driver.Payload) (driver.Version, error) {
	v, err := d.Secrets.Create(ctx, name, p)
	if after := d.onCreate; err == nil && after != nil {
		d.onCreate = nil
		after()
		return "", fmt.Errorf("%w: the answer was lost", driver.ErrUnavailable)
	}
	return v, err
}

// TestRemoveDead checks that RemoveDead deletes an entry whose record was deleted. The
// response to the Create that proves the deletion is lost. RemoveDead must keep the created
// entry if another process has used it meanwhile.
func TestRemoveDead(t *testing.T) {
	t.Parallel()
	ann := codec.Fields{UserName: "ann", ClientID: "client", AccessToken: "access9"}
	for name, used := range map[string]bool{"unused": false, "used": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &lagging{Secrets: memstore.NewDriver()}
			l := ledger.New(d, ledger.Config{NameKeys: [][]byte{nil}, IndexKeys: [][]byte{nil}, Codec: codec.JSON, Attempts: 3, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
			w, ctx := l.Writer(), t.Context()
			user := l.Namers()[0].Of(ann)
			dead, err := w.Create(ctx, "gaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", stored.Record{Moved: &stored.Ref{Name: string(user), Born: "former"}})
			if err != nil {
				t.Fatal(err)
			}
			d.onCreate = func() {
				if !used {
					return
				}
				created, err := l.Newest(ctx, user, ledger.Entry{})
				if err != nil {
					t.Error(err)
					return
				}
				next := created.Record
				next.Fields = ann
				if _, err := l.Writer().Update(ctx, created, next); err != nil {
					t.Error(err)
				}
			}
			if err := w.RemoveDead(ctx, dead); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Newest(ctx, dead.Name, ledger.Entry{}); err == nil {
				t.Error("the dead entry is still there")
			}
			left, err := l.Newest(ctx, user, ledger.Entry{})
			if there := err == nil; there != used || used && left.AccessToken != ann.AccessToken {
				t.Errorf("the record of the user is %v, %v; used is %v", left.Record, err, used)
			}
		})
	}
}
