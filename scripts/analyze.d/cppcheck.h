/* What cppcheck cannot see into: a simpler form of jansson's loops. */
#define json_array_foreach(array, i, value) for ((i) = 0; (i) < json_array_size(array) && ((value) = json_array_get(array, i)); (i)++)
#define json_object_foreach(object, key, value) for ((key) = json_key(object); (key) && ((value) = json_value(key)); (key) = json_key(object))
