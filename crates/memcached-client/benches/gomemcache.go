// Counts the operations of gomemcache per second. Arguments: address, operations in flight, keys per
// operation, stored keys, milliseconds. (Debian's version keeps two idle connections, and opens others as needed.)
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

func number(argument int) int {
	number, err := strconv.Atoi(os.Args[argument])
	if err != nil {
		log.Fatal(err)
	}
	return number
}

func main() {
	inFlight, keysOfBatch, stored := number(2), number(3), number(4)
	client := memcache.New(os.Args[1])
	client.Timeout = 10 * time.Second
	var batch []string
	for n := 0; n < keysOfBatch; n++ {
		batch = append(batch, "key"+strconv.Itoa(n))
	}
	var next, done int64
	var all sync.WaitGroup
	begun := time.Now()
	end := begun.Add(time.Duration(number(5)) * time.Millisecond)
	for task := 0; task < inFlight; task++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for time.Now().Before(end) {
				var err error
				if keysOfBatch > 1 {
					_, err = client.GetMulti(batch)
				} else {
					_, err = client.Get("key" + strconv.FormatInt(atomic.AddInt64(&next, 1)%int64(stored), 10))
				}
				if err != nil {
					log.Fatal(err)
				}
				atomic.AddInt64(&done, 1)
			}
		}()
	}
	all.Wait()
	fmt.Println(float64(done) / time.Since(begun).Seconds())
}
