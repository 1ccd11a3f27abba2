package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// keptGenerations is how many earlier generations are kept.
const keptGenerations = 50

const historyDir = "history"

func historyFile(number int) string {
	return filepath.Join(historyDir, strconv.Itoa(number)+".json")
}

// keepGeneration writes an earlier generation, and removes the oldest.
func (s *store) keepGeneration(g *generation) error {
	if err := os.Mkdir(filepath.Join(s.dir, historyDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the history's directory: %w", err)
	}
	g.Version = stateVersion
	if err := s.replace(historyFile(g.Number), g, true); err != nil {
		return err
	}
	numbers, err := s.keptNumbers()
	if err != nil {
		return err
	}
	for _, n := range numbers[min(keptGenerations, len(numbers)):] {
		if err := s.remove(historyFile(n)); err != nil {
			return err
		}
	}
	return nil
}

// kept reads an earlier generation; fs.ErrNotExist if it is not kept.
func (s *store) kept(number int) (*generation, error) {
	var g generation
	if err := s.read(historyFile(number), &g); err != nil {
		return nil, err
	}
	return &g, nil
}

// history reads the earlier generations, the newest first. One that cannot be read is
// left out: it is no more than a memory.
func (s *store) history() ([]*generation, error) {
	numbers, err := s.keptNumbers()
	if err != nil {
		return nil, err
	}
	var all []*generation
	for _, n := range numbers {
		if g, err := s.kept(n); err == nil {
			all = append(all, g)
		}
	}
	return all, nil
}

// keptNumbers are those of the generations that are kept, descending.
func (s *store) keptNumbers() ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, historyDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the history: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".json")
		if n, err := strconv.Atoi(base); ok && err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	slices.Reverse(numbers)
	return numbers, nil
}
