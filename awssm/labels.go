package awssm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/smithy-go"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// Labels are tags, one key each, with the time as value.
const tagSpace = "tokenkeep:"

// maxTags is how many tags a secret has.
const maxTags = 50

func tagPrefix(l driver.Label) string { return tagSpace + l.Key + ":" + l.Value + ":" }

func tagKey(l driver.Label) string { return tagPrefix(l) + l.Nonce }

// labelOf returns the label that is the key of a tag.
func labelOf(tag string) (driver.Label, bool) {
	parts := strings.Split(tag, ":")
	if len(parts) != 4 || parts[0]+":" != tagSpace {
		return driver.Label{}, false
	}
	return driver.Label{Key: parts[1], Value: parts[2], Nonce: parts[3]}, true
}

// labelsOf returns the labels among tags.
func labelsOf(tags []types.Tag) []driver.Label {
	var labels []driver.Label
	for _, t := range tags {
		if l, ok := labelOf(aws.ToString(t.Key)); ok {
			labels = append(labels, l)
		}
	}
	return labels
}

// abandoned returns the labels among tags that were added so long ago that no write
// under way has added them.
func (s *secrets) abandoned(tags []types.Tag) []driver.Label {
	var labels []driver.Label
	for _, t := range tags {
		l, ok := labelOf(aws.ToString(t.Key))
		added, err := time.Parse(time.RFC3339, aws.ToString(t.Value))
		if ok && err == nil && s.now().Sub(added) > labelLife {
			labels = append(labels, l)
		}
	}
	return labels
}

func (s *secrets) tagsOf(labels []driver.Label) []types.Tag {
	at := aws.String(s.now().UTC().Format(time.RFC3339))
	var tags []types.Tag
	for _, l := range labels {
		tags = append(tags, types.Tag{Key: aws.String(tagKey(l)), Value: at})
	}
	return tags
}

func keysOf(labels []driver.Label) []string {
	var keys []string
	for _, l := range labels {
		keys = append(keys, tagKey(l))
	}
	return keys
}

// label adds labels to the secret of a change. held are the labels that must stay. It
// returns those that there is no room for: a label is a hint, and a record is
// written without it rather than not at all.
func (s *secrets) label(ctx context.Context, c change, labels, held []driver.Label) (lacks []driver.Label, err error) {
	if len(labels) == 0 {
		return nil, nil
	}
	err = s.attach(ctx, c.base.arn, s.tagsOf(labels))
	if err == nil || !unfit(err) {
		return nil, err
	}
	out, unknown := s.describe(ctx, c.base.arn)
	if ctx.Err() != nil {
		return nil, unknown
	}
	var present []driver.Label
	used := 0 // tags that there are, beside the labels that are to be added
	if unknown == nil {
		present, used = labelsOf(out.Tags), len(out.Tags)
		used -= len(labels) - len(without(labels, present))
	}
	if used+len(labels) <= maxTags && !full(err) {
		return nil, err // it is not about how many there are
	}
	if unknown == nil {
		removed, err := s.tidy(ctx, c, without(s.abandoned(out.Tags), slices.Concat(held, labels)))
		if err != nil {
			return nil, err
		}
		used -= removed
	}
	fits := labels[:max(0, min(maxTags-used, len(labels)))]
	if len(fits) > 0 {
		if err := s.attach(ctx, c.base.arn, s.tagsOf(fits)); err != nil && !unfit(err) {
			return nil, err
		} else if err != nil {
			fits = nil
		}
	}
	return labels[len(fits):], nil
}

// unfit reports whether the service has refused tags for what they are, or for how
// many.
func unfit(err error) bool {
	var answer smithy.APIError
	if !errors.As(err, &answer) || errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrDenied) {
		return false
	}
	return slices.Contains([]string{
		"InvalidParameterException", "InvalidRequestException", "LimitExceededException", "ValidationException",
	}, answer.ErrorCode())
}

var tooMany = regexp.MustCompile(`(?i)\b(more than|at most|exceed\w*|limit\w*|maximum|quota|too many)\b`)

// full reports whether a refusal of tags says that there are too many.
func full(err error) bool {
	var limit *types.LimitExceededException
	if errors.As(err, &limit) {
		return true
	}
	var answer smithy.APIError
	return errors.As(err, &answer) && tooMany.MatchString(answer.ErrorMessage()) && strings.Contains(strings.ToLower(answer.ErrorMessage()), "tag")
}

// tidy removes labels that writes have left which were broken off or lost to
// others, and returns how many. They are held by no record if the base of the change
// is the present state, which is asked first. That they cannot be removed is no
// error: they take room.
func (s *secrets) tidy(ctx context.Context, c change, abandoned []driver.Label) (int, error) {
	if len(abandoned) == 0 {
		return 0, nil
	}
	switch _, err := s.read(ctx, c.path, c.next.arn, c.next.id); {
	case err == nil:
		return 0, fmt.Errorf("%w: %s has a newer version", driver.ErrConflict, c.next.arn)
	case !errors.Is(err, driver.ErrNotFound):
		return 0, err
	}
	if _, err := s.detach(ctx, c.next.arn, keysOf(abandoned)); err != nil {
		return 0, ctx.Err()
	}
	return len(abandoned), nil
}

// unlabel removes labels, as far as that succeeds: left over they do no harm. kept
// says that it is certain that they are still there, and stay.
func (s *secrets) unlabel(ctx context.Context, arn string, labels []driver.Label) (kept bool) {
	if len(labels) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, cleanup)
	defer cancel()
	kept, _ = s.detach(ctx, arn, keysOf(labels))
	return kept
}

// takeBack removes the labels that a write has added which has failed, if it is
// certain that it has and that none of them is another write's. The others are left
// to a later write over the same base.
func (s *secrets) takeBack(ctx context.Context, c change, err error) {
	var fresh, used []driver.Label
	for l, first := range c.issued {
		if first.IsZero() {
			fresh = append(fresh, l)
		} else {
			used = append(used, l)
		}
	}
	conflict := errors.Is(err, driver.ErrConflict)
	switch {
	case errors.Is(err, driver.ErrNotFound), conflict && c.creates:
		return // Create goes on with the same labels
	case !errors.As(err, new(rejected)), ctx.Err() != nil:
		s.pool.leave(c, slices.Concat(fresh, used))
		return
	case !conflict:
		s.pool.leave(c, used)
	}
	// A used label may be that of a write over this base whose outcome is not known,
	// and which may be the one that has won: it is not removed. A label whose removal
	// was asked for may be removed at any time later: no write uses it again.
	if kept := s.unlabel(ctx, c.base.arn, fresh); kept && !conflict {
		s.pool.leave(c, fresh)
	}
}

// Relabel implements driver.Labeler.
func (s *secrets) Relabel(name string, base driver.Version, added []driver.Label) []driver.Label {
	return s.pool.relabel(base, added, s.now())
}

// A pool has the nonces of the labels that writes of this process add. A nonce is
// given to one write at a time.
type pool struct {
	mu     sync.Mutex
	issued issued                  // to writes that have not begun
	left   map[leftKey][]leftNonce // beside a secret, perhaps, and to be used again
}

// issued says when labels were first used, which is the zero Time of those that no
// write has used.
type issued map[driver.Label]time.Time

// A leftKey is what a label is for. A label is used again over the same base alone:
// the clean-up of a write over another one may be under way.
type leftKey struct {
	base       driver.Version
	key, value string
}

// A leftNonce is the nonce of a label that a write has left.
type leftNonce struct {
	nonce string
	first time.Time // when it was first used
}

const (
	// reuse is how long after it was first added a label is used again: tidy takes
	// it for abandoned after labelLife, and a write takes half of that.
	reuse = labelLife / 4

	// maxPool is how many labels a pool remembers of either kind.
	maxPool = 1 << 12
)

// relabel gives the labels that a write over a base adds their nonces.
func (p *pool) relabel(base driver.Version, added []driver.Label, now time.Time) []driver.Label {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.issued == nil || len(p.issued) > maxPool {
		p.issued = issued{}
	}
	labels := slices.Clone(added)
	for i := range labels {
		l := &labels[i]
		key := leftKey{base, l.Key, l.Value}
		left := slices.DeleteFunc(p.left[key], func(n leftNonce) bool { return now.Sub(n.first) > reuse })
		delete(p.left, key)
		if len(left) == 0 {
			l.Nonce = strings.ToLower(rand.Text()[:16])
			p.issued[*l] = time.Time{}
			continue
		}
		l.Nonce = left[0].nonce
		p.issued[*l] = left[0].first
		if len(left) > 1 {
			p.left[key] = left[1:]
		}
	}
	return labels
}

// use returns those of the labels of a write that were issued for it.
func (p *pool) use(labels []driver.Label) issued {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := issued{}
	for _, l := range labels {
		if first, ok := p.issued[l]; ok {
			used[l] = first
			delete(p.issued, l)
		}
	}
	return used
}

// leave notes labels that a change has left. Those of a creation are not used again:
// the base of the next one may be another.
func (p *pool) leave(c change, labels []driver.Label) {
	if c.creates {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == nil || len(p.left) > maxPool {
		p.left = map[leftKey][]leftNonce{}
	}
	for _, l := range labels {
		first := c.issued[l]
		if first.IsZero() {
			first = c.begun
		}
		key := leftKey{c.base.version(), l.Key, l.Value}
		p.left[key] = append(p.left[key], leftNonce{l.Nonce, first})
	}
}
