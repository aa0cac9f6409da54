// The requests of the benchmark by Go's net/http. Arguments: URL, number of requests, how many at once, the right answer.
// Prints what it measured as JSON, in the units that the benchmark uses.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

var url, answer = os.Args[1], os.Args[4]

func main() {
	requests, atOnce := number(os.Args[2]), number(os.Args[3])
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// The default keeps two and would open a connection for nearly every request.
	transport.MaxIdleConnsPerHost = 100
	transport.DisableCompression = true
	client := &http.Client{Transport: transport}
	all(client, requests/10, atOnce)
	begun, used := time.Now(), cpu()
	times := all(client, requests, atOnce)
	took := time.Since(begun)
	used = cpu() - used
	slices.Sort(times)
	at := func(hundredths int) float64 {
		return float64(times[len(times)*hundredths/100].Nanoseconds()) / 1e3
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"per_second": float64(len(times)) / took.Seconds(),
		"median":     at(50),
		"p99":        at(99),
		"cpu":        float64(used.Nanoseconds()) / 1e3 / float64(len(times)),
	}))
}

func all(client *http.Client, requests, atOnce int) []time.Duration {
	share := requests / atOnce
	times := make([]time.Duration, share*atOnce)
	var group sync.WaitGroup
	for part := range slices.Chunk(times, share) {
		group.Go(func() {
			for i := range part {
				begun := time.Now()
				response, err := client.Get(url)
				check(err)
				body, err := io.ReadAll(response.Body)
				check(err)
				check(response.Body.Close())
				part[i] = time.Since(begun)
				if string(body) != answer {
					check(fmt.Errorf("another answer came back: %q", body))
				}
			}
		})
	}
	group.Wait()
	return times
}

func cpu() time.Duration {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
