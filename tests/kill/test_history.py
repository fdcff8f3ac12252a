"""The checker catches what it must: each mutation of a good history gives exactly its verdict."""
import unittest

from history import History, Row, check


def good():
    h = History()
    n = 0
    for conv in ("g/x", "u/a:b"):
        for seq in range(1, 5):
            n += 1
            key = ("a", f"a-{n}")
            h.attempts[key] = (conv, f"body {n}", n, float(n))
            h.acked[key] = n + 0.5
            h.ack_events.append(("a", key[1], conv, seq, f"m{n}", False))
            h.rows.append(Row(conv, seq, f"m{n}", key[1], "a", f"body {n}"))
            h.deliveries.setdefault("b:r", []).append((conv, seq, f"m{n}", f"body {n}"))
    return h


class Checker(unittest.TestCase):
    def verdicts(self, mutate):
        h = good()
        mutate(h)
        return {v for v, _ in check(h, lambda conv: ["b:r"])}

    def test_good_history_passes(self):
        self.assertEqual(self.verdicts(lambda h: None), set())

    def test_lost(self):
        def mutate(h):
            h.rows.pop()
            h.deliveries["b:r"].pop()
            h.ack_events.pop()
        self.assertEqual(self.verdicts(mutate), {"LOST"})

    def test_refused_is_not_lost(self):
        def mutate(h):
            r = h.rows.pop()
            h.deliveries["b:r"].pop()
            h.ack_events.pop()
            h.refused[r.sender, r.id] = "too_fast"
        self.assertEqual(self.verdicts(mutate), set())

    def test_refused_and_stored(self):
        self.assertEqual(self.verdicts(lambda h: h.refused.update({("a", "a-1"): "too_fast"})), {"FALSE-REFUSAL"})

    def test_id_twice(self):
        def mutate(h):
            h.rows.append(h.rows[-1]._replace(seq=5, msgid="m9"))
            h.deliveries["b:r"].append(("u/a:b", 5, "m9", "body 8"))
        self.assertTrue({"DUP-STORE"} <= self.verdicts(mutate))

    def test_invented_row(self):
        def mutate(h):
            h.rows.append(Row("u/a:b", 9, "m99", "zz", "a", "?"))
            h.deliveries["b:r"].append(("u/a:b", 9, "m99", "?"))
        self.assertEqual(self.verdicts(mutate), {"INVENTED"})

    def test_corrupt_body(self):
        def mutate(h):
            h.rows[0] = h.rows[0]._replace(body="other")
            h.deliveries["b:r"][0] = ("g/x", 1, "m1", "other")
        self.assertEqual(self.verdicts(mutate), {"CORRUPT"})

    def test_sequence_goes_back(self):
        def mutate(h):
            h.rows[0], h.rows[1] = h.rows[1], h.rows[0]
        self.assertTrue({"SEQ"} <= self.verdicts(mutate))

    def test_sender_order(self):
        def mutate(h):
            a, b = h.attempts["a", "a-1"], h.attempts["a", "a-2"]
            h.attempts["a", "a-1"] = (a[0], a[1], 2, 1.0)
            h.attempts["a", "a-2"] = (b[0], b[1], 1, 1.0)
        self.assertEqual(self.verdicts(mutate), {"REORDER-FIFO"})

    def test_real_time_order(self):
        def mutate(h):
            for i, key in enumerate((("a", "a-1"), ("b", "a-2"))):
                old = h.attempts.pop(("a", f"a-{i + 1}"))
                h.acked.pop(("a", f"a-{i + 1}"))
                h.attempts[key] = (old[0], old[1], old[2], (100.0, 50.0)[i])
                h.acked[key] = (101.0, 51.0)[i]
            h.rows[1] = h.rows[1]._replace(sender="b")
            h.ack_events[1] = ("b", "a-2", "g/x", 2, "m2", False)
            for i in (3, 4):
                h.acked["a", f"a-{i}"] = 200.0
        self.assertEqual(self.verdicts(mutate), {"REORDER-RT"})

    def test_false_ack(self):
        self.assertEqual(self.verdicts(lambda h: h.ack_events.append(("a", "a-1", "g/x", 4, "m1", True))), {"FALSE-ACK"})

    def test_undelivered(self):
        self.assertEqual(self.verdicts(lambda h: h.deliveries["b:r"].pop(2)), {"UNDELIVERED"})

    def test_delivery_order(self):
        def mutate(h):
            d = h.deliveries["b:r"]
            d[0], d[1] = d[1], d[0]
        self.assertEqual(self.verdicts(mutate), {"REORDER-DELIVERY"})

    def test_repeat_with_another_content(self):
        self.assertEqual(self.verdicts(lambda h: h.deliveries["b:r"].append(("g/x", 1, "m1", "changed"))), {"DUP-DELIVERY"})

    def test_true_repeat_is_fine(self):
        self.assertEqual(self.verdicts(lambda h: h.deliveries["b:r"].append(("g/x", 1, "m1", "body 1"))), set())

    def test_delivery_of_what_is_not_stored(self):
        self.assertEqual(self.verdicts(lambda h: h.deliveries["b:r"].append(("g/x", 77, "m77", "?"))), {"INVENTED"})


if __name__ == "__main__":
    unittest.main()
