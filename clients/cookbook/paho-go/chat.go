// A short chat with Paho Go (Debian's golang-github-eclipse-paho.mqtt.golang-dev). README.md in the parent folder tells the steps.
package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const wait = 15 * time.Second

type packet struct{ topic, payload string }

type device struct {
	user, peer string
	client     mqtt.Client
	options    *mqtt.ClientOptions
	incoming   chan packet
	seen       []packet
}

func die(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func must(t mqtt.Token, what string) {
	if !t.WaitTimeout(wait) {
		die("no answer: %s", what)
	}
	if t.Error() != nil {
		die("%s: %v", what, t.Error())
	}
}

func (d *device) connect() {
	d.seen = nil
	d.incoming = make(chan packet, 256)
	in := d.incoming
	// The default handler takes what the kept session delivers before the subscription's own one is there.
	d.options.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		in <- packet{m.Topic(), string(m.Payload())}
	})
	d.client = mqtt.NewClient(d.options)
	must(d.client.Connect(), "connect")
	must(d.client.Subscribe("im/v1/in/#", 1, nil), "subscribe")
}

// publish sends with QoS 1 and waits for the PUBACK.
func (d *device) publish(topic, text string) {
	fmt.Printf("send: %s %s\n", topic, text)
	must(d.client.Publish(topic, 1, false, text), "publish")
}

// expect waits for a packet on topic that holds both words, prints and returns its payload.
func (d *device) expect(step, topic, word, word2 string) string {
	deadline := time.After(wait)
	for i := 0; ; i++ {
		if i == len(d.seen) {
			select {
			case p := <-d.incoming:
				d.seen = append(d.seen, p)
			case <-deadline:
				die("not seen within %v: %s", wait, step)
			}
		}
		p := d.seen[i]
		if p.topic == topic && strings.Contains(p.payload, word) && strings.Contains(p.payload, word2) {
			fmt.Printf("%s: %s %s\n", step, p.topic, p.payload)
			return p.payload
		}
	}
}

var seqField = regexp.MustCompile(`"seq": *([0-9]+)`)

// acknowledge moves the cursors up to a message.
func (d *device) acknowledge(message string) {
	m := seqField.FindStringSubmatch(message)
	if m == nil {
		die("a message without seq: %s", message)
	}
	d.publish("im/v1/ack", fmt.Sprintf(`[{"conv":"u/%s","delivered":%s,"read":%s}]`, d.peer, m[1], m[1]))
}

func main() {
	password := os.Getenv("IM_PASSWORD")
	if len(os.Args) != 5 || password == "" {
		die("usage: IM_PASSWORD=... chat HOST PORT USER PEER")
	}
	d := &device{user: os.Args[3], peer: os.Args[4]}
	d.options = mqtt.NewClientOptions().AddBroker("tcp://" + os.Args[1] + ":" + os.Args[2]).
		SetClientID(d.user + ":cookbook-paho-go").SetUsername(d.user).SetPassword(password).
		SetCleanSession(false).SetAutoReconnect(false).SetProtocolVersion(4)
	run := fmt.Sprintf("go%d-%d", time.Now().Unix(), os.Getpid())
	to := "im/v1/to/u/" + d.peer + "/" + run
	inbox := "im/v1/in/msg/u/" + d.peer

	d.connect()
	d.expect("welcome", "im/v1/in/evt/welcome", "", "")
	d.publish(to+"-1", "hello "+run)
	d.expect("acked", "im/v1/in/ack", run+"-1", "")
	d.acknowledge(d.expect("received", inbox, "hello "+run, ""))
	d.publish("im/v1/to/u/nobody.at.all/"+run+"-2", "is anybody there")
	d.expect("refused", "im/v1/in/err", run+"-2", "")
	d.publish(to+"-1", "hello "+run)
	d.expect("repeat answered alike", "im/v1/in/ack", run+"-1", "true")

	d.publish(to+"-3", "while away "+run)
	d.client.Disconnect(250)
	fmt.Println("away")
	time.Sleep(time.Second) // the answer arrives meanwhile
	d.connect()
	d.acknowledge(d.expect("caught up", inbox, "while away "+run, ""))
	d.client.Disconnect(250)
	fmt.Println("done")
}
