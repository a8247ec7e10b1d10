package evidence

import "context"

// Mistakes returns, for each of the services in Broken, which of the first
// histories is the first one without an explanation, counted from 1; 0 if each of
// them has one, and the mistake was not found.
func Mistakes(ctx context.Context, histories int) (map[string]int, error) {
	found := map[string]int{}
	for mistake := range Broken {
		found[mistake] = 0
		for i := range histories {
			if _, err := linearizable(ctx, startBroken(mistake), Plain, uint64(i)); ctx.Err() != nil {
				return nil, ctx.Err()
			} else if err != nil {
				found[mistake] = i + 1
				break
			}
		}
	}
	return found, nil
}
