// gomemcache: reads what the test has stored, and stores values for it. Run with the server's address.
package main

import (
	"log"
	"os"

	"github.com/bradfitz/gomemcache/memcache"
)

func main() {
	client := memcache.New(os.Args[1])
	expected := map[string]memcache.Item{
		"text":  {Value: []byte("Grüße"), Flags: 5},
		"bytes": {Value: []byte("\x00\xff\r\n"), Flags: 0xf7ffffff},
		"empty": {Value: []byte{}, Flags: 0},
	}
	for key, item := range expected {
		found, err := client.Get("ours/" + key)
		if err != nil || string(found.Value) != string(item.Value) || found.Flags != item.Flags {
			log.Fatalf("ours/%s: %v %v", key, found, err)
		}
	}
	for key, item := range expected {
		item.Key = "theirs/" + key
		if err := client.Set(&item); err != nil {
			log.Fatal(err)
		}
	}
	found, err := client.Get("ours/text")
	if err != nil {
		log.Fatal(err)
	}
	found.Value = []byte("swapped")
	if err := client.CompareAndSwap(found); err != nil {
		log.Fatal(err)
	}
}
