// A short chat with Paho C++ (libpaho-mqttpp3, synchronous client). README.md in the parent folder tells the steps.
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <mqtt/client.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace std::chrono_literals;

struct packet {
	std::string topic, payload;
};

class device {
public:
	device(const std::string &url, const std::string &user)
		: client_(url, user + ":cookbook-paho-cpp")
	{
		client_.set_timeout(15s);
		options_.set_clean_session(false);
		options_.set_keep_alive_interval(60s);
		options_.set_user_name(user);
		options_.set_password(std::getenv("IM_PASSWORD"));
	}

	void connect()
	{
		client_.start_consuming();
		client_.connect(options_);
		client_.subscribe("im/v1/in/#", 1);
	}

	void disconnect()
	{
		client_.stop_consuming();
		client_.disconnect();
		seen_.clear();
	}

	// Publishes with QoS 1 and waits for the PUBACK.
	void publish(const std::string &topic, const std::string &text)
	{
		std::cout << "send: " << topic << " " << text << std::endl;
		client_.publish(mqtt::make_message(topic, text, 1, false));
	}

	// Waits for a packet on `topic` that holds both words, prints and returns its payload.
	std::string expect(const std::string &step, const std::string &topic, const std::string &word = "", const std::string &word2 = "")
	{
		const auto end = std::chrono::steady_clock::now() + 15s;

		do {
			for (const auto &p : seen_) {
				if (p.topic == topic && p.payload.find(word) != std::string::npos && p.payload.find(word2) != std::string::npos) {
					std::cout << step << ": " << topic << " " << p.payload << std::endl;
					return p.payload;
				}
			}
			mqtt::const_message_ptr msg;
			if (client_.try_consume_message_for(&msg, 100ms) && msg)
				seen_.push_back({msg->get_topic(), msg->to_string()});
		} while (std::chrono::steady_clock::now() < end);
		throw std::runtime_error("not seen within 15 s: " + step);
	}

private:
	mqtt::client client_;
	mqtt::connect_options options_;
	std::vector<packet> seen_;
};

// Moves the cursors up to a message.
static void acknowledge(device &d, const std::string &peer, const std::string &message)
{
	const auto at = message.find("\"seq\":");
	const auto seq = std::to_string(at == std::string::npos ? 0 : std::stoull(message.substr(at + 6)));

	d.publish("im/v1/ack", "[{\"conv\":\"u/" + peer + "\",\"delivered\":" + seq + ",\"read\":" + seq + "}]");
}

static void chat(const std::string &url, const std::string &user, const std::string &peer)
{
	const auto run = "cpp" + std::to_string(std::time(nullptr)) + "-" + std::to_string(getpid());
	const auto to = "im/v1/to/u/" + peer + "/" + run;
	const auto inbox = "im/v1/in/msg/u/" + peer;
	device d(url, user);

	d.connect();
	d.expect("welcome", "im/v1/in/evt/welcome");
	d.publish(to + "-1", "hello " + run);
	d.expect("acked", "im/v1/in/ack", run + "-1");
	acknowledge(d, peer, d.expect("received", inbox, "hello " + run));
	d.publish("im/v1/to/u/nobody.at.all/" + run + "-2", "is anybody there");
	d.expect("refused", "im/v1/in/err", run + "-2");
	d.publish(to + "-1", "hello " + run);
	d.expect("repeat answered alike", "im/v1/in/ack", run + "-1", "true");

	d.publish(to + "-3", "while away " + run);
	d.disconnect();
	std::cout << "away" << std::endl;
	std::this_thread::sleep_for(1s); // the answer arrives meanwhile
	d.connect();
	acknowledge(d, peer, d.expect("caught up", inbox, "while away " + run));
	d.disconnect();
	std::cout << "done" << std::endl;
}

int main(int argc, char **argv)
{
	if (argc != 5 || !std::getenv("IM_PASSWORD")) {
		std::cerr << "usage: IM_PASSWORD=... chat HOST PORT USER PEER\n";
		return 1;
	}
	try {
		chat(std::string("tcp://") + argv[1] + ":" + argv[2], argv[3], argv[4]);
	} catch (const std::exception &e) {
		std::cerr << e.what() << "\n";
		return 1;
	}
	return 0;
}
