/* Two clocks: wall time for people, monotonic time for timers. Clocks never decide order. */
#ifndef IM_BASE_CLOCK_H
#define IM_BASE_CLOCK_H

#include <stdint.h>

int64_t im_clock_wall_ms(void); /* ms UTC since 1970 */
int64_t im_clock_mono_ms(void); /* ms since some start; never goes back */
int64_t im_clock_mono_us(void);

#endif
