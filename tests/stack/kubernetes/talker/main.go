// talker is what the tests' pods run: it serves TCP ports, and makes connections that it counts itself.
//
//	talker serve PORT...                     echoes on each port until the client closes
//	talker dial COUNT ADDRESS...             COUNT connections to each ADDRESS, one after the other
//	talker load PER_SECOND ADDRESS...        connections in turn until standard input ends, an hour at most
//
// Each connection is a line on standard output: "FROM TO", or "failed TO REASON".
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const patience = 20 * time.Second

func main() {
	if len(os.Args) < 3 {
		fail(errors.New("usage: talker serve|dial|load ..."))
	}
	words := os.Args[2:]
	switch os.Args[1] {
	case "serve":
		for _, port := range words {
			listener, err := net.Listen("tcp", ":"+port)
			if err != nil {
				fail(err)
			}
			go serve(listener)
		}
		select {}
	case "dial":
		for _, address := range words[1:] {
			for range number(words[0]) {
				line, _ := talk(address)
				fmt.Println(line)
			}
		}
	case "load":
		load(number(words[0]), words[1:])
	default:
		fail(fmt.Errorf("unknown command %s", os.Args[1]))
	}
}

func serve(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			fail(err)
		}
		go func() {
			defer connection.Close()
			connection.SetDeadline(time.Now().Add(patience))
			io.Copy(connection, connection)
		}()
	}
}

// talk makes one connection, sends five bytes, waits for them and closes first.
func talk(address string) (string, error) {
	connection, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		reason := "other: " + err.Error()
		if errors.Is(err, syscall.ECONNREFUSED) {
			reason = "refused"
		}
		return fmt.Sprintf("failed %s %s", address, reason), err
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(patience))
	line := fmt.Sprintf("%s %s", connection.LocalAddr(), connection.RemoteAddr())
	if _, err := connection.Write([]byte("hello")); err != nil {
		return line + " broken", err
	}
	if _, err := io.ReadFull(connection, make([]byte, 5)); err != nil {
		return line + " broken", err
	}
	return line, nil
}

func load(perSecond int, addresses []string) {
	over := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	var lock sync.Mutex
	var talking sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	end := time.After(time.Hour)
	for i := 0; ; i++ {
		select {
		case <-over:
			talking.Wait()
			out.Flush()
			return
		case <-end:
			fail(errors.New("nobody ended the load"))
		case <-tick.C:
			talking.Add(1)
			go func() {
				defer talking.Done()
				line, _ := talk(addresses[i%len(addresses)])
				lock.Lock()
				defer lock.Unlock()
				fmt.Fprintln(out, line)
			}()
		}
	}
}

func number(word string) int {
	n, err := strconv.Atoi(word)
	if err != nil || n < 1 {
		fail(fmt.Errorf("%q is no number", word))
	}
	return n
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "talker:", err)
	os.Exit(1)
}
